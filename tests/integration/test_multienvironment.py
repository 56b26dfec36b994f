"""What a user does with a multi-environment, as creamas.mp's reference page has it."""

from __future__ import annotations

import os
import threading
from collections import Counter as Multiset
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc import (
    Artifact,
    CreativeAgent,
    Environment,
    MsgPack,
    MultiEnvironment,
    Proxy,
    Simulation,
)
from creamas_sc.core.randomness import RandomSource, Spawned
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadValue,
    DecodeError,
    NoSlaves,
    NotExposed,
    StartError,
)
from creamas_sc.mp import EnvManager, StepReport
from creamas_sc.rpc.addresses import split_address
from creamas_sc.runtime.stack_dumps import Answer, ask
from tests.support import agents
from tests.support.agents import Counter, Echo, Gives, Raises, Reporter
from tests.support.marks import also_free
from tests.support.shared_supervisor import uses_shared_supervisor


@pytest.mark.parametrize("calls", ["free", "rounds"])
async def test_results_are_in_spawn_order_with_free_calls_after_that_of_slaves(
    menv: MultiEnvironment, calls: str
) -> None:
    for start in (0, 10, 20, 30):
        await menv.spawn(Counter, start)
    numbers = [split_address(a)[2] for a in await menv.get_agents(as_coro=True)]
    free = calls == "free"
    assert numbers == ([1, 2, 1, 2] if free else [1, 1, 2, 2])
    assert await menv.trigger_all() == ([1, 21, 11, 31] if free else [1, 11, 21, 31])
    assert await menv.trigger_all() == ([2, 22, 12, 32] if free else [2, 12, 22, 32])


async def test_numbers_say_the_order_of_spawning(menv: MultiEnvironment) -> None:
    addrs = [(await menv.spawn(Counter))[1] for _ in range(5)]
    assert list((await menv.get_numbers(as_coro=True)).items()) == [
        *zip(addrs, range(5), strict=True)
    ]
    host = await menv.connect(menv.manager.addr)
    assert list(await host.get_numbers()) == addrs
    manager = await menv.connect(menv.addrs[1])
    assert await manager.get_numbers() == {addrs[1]: 1, addrs[3]: 3}
    (later,) = [addr for _, addr in await menv.spawn_n(Counter, 1, addr=menv.addrs[0])]
    assert list(await menv.get_numbers(as_coro=True)) == [*addrs, later]


async def test_agents_act_one_after_another_in_the_order_of_spawning(
    menv: MultiEnvironment,
) -> None:
    starts: dict[str, int] = {}
    for start, slave in enumerate([*menv.addrs, *menv.addrs[::-1]] * 2):
        _, addr = await menv.spawn(Counter, 10 * start, addr=slave)
        starts[addr] = 10 * start
    sim = Simulation(menv)
    assert await trio.to_thread.run_sync(sim.step) == [start + 1 for start in starts.values()]
    sim.order = "alphabetical"
    acted = await trio.to_thread.run_sync(sim.step)
    assert acted == [starts[addr] + 2 for addr in sorted(starts)]


async def test_its_repr_says_what_is_in_it(menv: MultiEnvironment) -> None:
    await menv.spawn_n(Echo, 3)
    menv.age = 5
    assert repr(menv) == "MultiEnvironment(localhost:0, slaves=2, agents=3, age=5)"
    await menv.close(as_coro=True)
    assert repr(menv) == "MultiEnvironment(localhost:0, slaves=0, agents=0, age=5, closed)"


async def test_spawn_picks_the_slave_with_the_fewest_agents(menv: MultiEnvironment) -> None:
    first, second = menv.addrs
    spawned = await menv.spawn_n("tests.support.agents:Echo", 3, addr=second)
    assert [addr for _, addr in spawned] == [second[:-1] + str(n) for n in (1, 2, 3)]
    assert all(isinstance(proxy, Proxy) and proxy.addr == addr for proxy, addr in spawned)
    landed = [(await menv.spawn(Echo))[1] for _ in range(4)]
    base = [addr.rpartition("/")[0] + "/0" for addr in landed]
    assert base == [first, first, first, first]


async def test_agents_are_in_processes_of_their_own(menv: MultiEnvironment) -> None:
    pids = {await (await menv.spawn(Echo))[0].pid() for _ in range(4)}
    assert len(pids) == 2
    assert os.getpid() not in pids


async def test_get_agents_by_class_and_as_proxies(menv: MultiEnvironment) -> None:
    await menv.spawn(Echo)
    await menv.spawn(Counter)
    echoes = await menv.get_agents(addr=False, agent_cls=Echo, as_coro=True)
    assert [await echo.evaluate(1) for echo in echoes] == [1]


@also_free
async def test_agents_use_asyncio_in_a_thread(menv: MultiEnvironment) -> None:
    agents = [await menv.spawn(Echo) for _ in range(2)]
    for asker, _ in agents:
        for _, asked in agents:
            assert await asker.ask_under_asyncio(asked, 0) == [1, 2]
    with trio.move_on_after(0.2) as scope:
        await agents[0][0].ask_under_asyncio(agents[1][1], 10)
    assert scope.cancelled_caught
    assert await agents[0][0].evaluate(1) == 1


async def test_slaves_of_a_class_for_creamas(menv: MultiEnvironment) -> None:
    await menv.spawn_slaves(
        [("localhost", 0)], agents.ForCreamas, agents.Manager, [{"codec": MsgPack, "size": 4}]
    )
    addr = menv.addrs[2]
    assert await (await menv.connect(addr)).is_ready()
    await menv.spawn(Echo, addr=addr)
    (draws,) = (await menv.gather("draw", 2)).values()
    rng = RandomSource(5, environment=3).generator(1, [Spawned(1, 0, 1)])
    assert draws == [float(rng.random()) for _ in range(2)]


async def test_gather_calls_all_agents_or_those_of_a_list(menv: MultiEnvironment) -> None:
    assert await menv.gather("evaluate", 1) == {}
    for _ in range(4):
        await menv.spawn(Echo)
    addrs = await menv.get_agents(as_coro=True)
    assert list((await menv.gather("evaluate", (1,))).items()) == [(a, (1,)) for a in addrs]
    some = [addrs[3], addrs[0]]
    assert list((await menv.gather("evaluate", 2, addrs=some)).items()) == [(a, 2) for a in some]
    host = await menv.connect(menv.manager.addr)
    assert await host.gather("evaluate", artifact=3, addrs=some) == dict.fromkeys(some, 3)
    assert len(set((await menv.gather("pid")).values())) == 2


async def test_gather_says_who_failed(menv: MultiEnvironment) -> None:
    await menv.spawn_n(Echo, 2, addr=menv.addrs[0])
    await menv.spawn_n(Counter, 1, addr=menv.addrs[1])
    one, two, counter = await menv.get_agents(as_coro=True)
    with pytest.raises(NotExposed, match=r"Counter of .* has no exposed method 'pid'"):
        await menv.gather("pid")
    for addrs in ([one, two], [two, one]):
        with pytest.raises(AgentErrors, match="2 of the agents failed in fail") as caught:
            await menv.gather("fail", "no", addrs=addrs)
        assert sorted(caught.value.failures) == sorted(addrs)
    with pytest.raises(AgentErrors, match="1 of the agents failed in perhaps") as caught:
        await menv.gather("perhaps", one)
    assert caught.value.results == {two: one, counter: one}
    with pytest.raises(ValueError, match="is not a slave's manager"):
        await menv.gather("pid", addrs=[one, menv.manager.addr])


async def test_artifacts_of_a_step_are_there_when_it_returns(menv: MultiEnvironment) -> None:
    for start in (0, 10, 20):
        await menv.spawn(Counter, start)
    menv.age = 5
    await menv.trigger_all()
    assert [artifact.obj for artifact in menv.artifacts] == [1, 11, 21]
    assert {artifact.env_time for artifact in menv.artifacts} == {5}
    name = menv.artifacts[2].creator
    assert menv.get_artifacts(agent_name=name) == [Artifact(name, 21)]


async def test_an_artifact_of_a_single_call_is_there_when_it_returns(
    menv: MultiEnvironment,
) -> None:
    agent, addr = await menv.spawn(Counter)
    await agent.act()
    assert await menv.trigger_act(addr) == 2
    assert [artifact.obj for artifact in menv.artifacts] == [1, 2]


@also_free
async def test_what_is_published_and_reported_in_a_step_is_there_once(
    menv: MultiEnvironment,
) -> None:
    await menv.set_host_managers()
    addrs = [(await menv.spawn(Reporter))[1] for _ in range(2)]
    await menv.trigger_all()
    assert Multiset(a.creator for a in menv.artifacts) == dict.fromkeys(addrs, 2)
    await menv.trigger_act(addrs[0])
    assert Multiset(a.creator for a in menv.artifacts) == {addrs[0]: 4, addrs[1]: 2}


async def test_slaves_see_all_artifacts_through_the_host_manager(menv: MultiEnvironment) -> None:
    echo, _ = await menv.spawn(Echo)
    counter, _ = await menv.spawn(Counter)
    await menv.set_host_managers()
    await counter.act()
    assert [a.obj for a in await echo.all_artifacts()] == [1]


async def test_managers_talk_to_the_host(menv: MultiEnvironment) -> None:
    manager = await menv.connect(menv.addrs[1])
    with pytest.raises(AgentError, match="no host manager"):
        await manager.report("too early")
    await menv.set_host_managers()
    assert await manager.host_manager() == menv.manager.addr
    assert await manager.report({"a": (1, 2)}) == ("heard", {"a": (1, 2)})
    assert menv.manager.reported == [{"a": (1, 2)}]
    host = await menv.env.connect(menv.manager.addr)
    assert await host.get_slave_managers() == menv.addrs
    await host.set_as_host_manager(menv.addrs[0])


@also_free
async def test_managers_run_the_whole(menv: MultiEnvironment) -> None:
    host = await menv.connect(menv.manager.addr)
    addr = await host.spawn("tests.support.agents:Counter", 4)
    addrs = await host.spawn_n("tests.support.agents:Counter", 2, addr=menv.addrs[1])
    assert await host.get_agents() == [addr, *addrs]
    assert await host.trigger_all() == [5, 1, 1]
    assert await host.is_ready()
    assert [a.obj for a in await host.get_artifacts()] == [5, 1, 1]
    await host.create_connections({addr: [(addrs[0], {"weight": 2})]})
    assert await host.get_connections() == [
        (addr, {addrs[0]: {"weight": 2}}),
        (addrs[0], {}),
        (addrs[1], {}),
    ]


async def test_connections(menv: MultiEnvironment) -> None:
    addrs = [(await menv.spawn(Echo))[1] for _ in range(3)]
    one, two, three = await menv.get_agents(as_coro=True)
    assert sorted(addrs) == sorted([one, two, three])
    made = await menv.create_connections(
        {one: [(two, {"a": 1}), (three, {})], three: [(one, {}), (one, {})], "tcp://no:1/1": []},
        as_coro=True,
    )
    assert made == [[True, True], [True, False]]
    assert await menv.get_connections(as_coro=True) == [
        (one, {two: {"a": 1}, three: {}}),
        (two, {}),
        (three, {one: {}}),
    ]
    assert await menv.get_connections(data=False, as_coro=True) == [
        (one, [two, three]),
        (two, []),
        (three, [one]),
    ]


@also_free
async def test_a_failed_act_keeps_the_others_results(menv: MultiEnvironment) -> None:
    for start in (0, 10):
        await menv.spawn(Counter, start)
    wrong = [(await menv.spawn(Raises, kind, "act"))[1] for kind in ("value", "exit", "interrupt")]
    wrong.append((await menv.spawn(agents.GivesStranger))[1])
    with pytest.raises(AgentErrors) as caught:
        await menv.trigger_all()
    assert sorted(caught.value.failures) == sorted(wrong)
    assert caught.value.results == [1, 11]
    kinds = {addr: error.type_name for addr, error in caught.value.failures.items()}
    assert [kinds[addr] for addr in wrong] == [
        "ValueError",
        "SystemExit",
        "KeyboardInterrupt",
        "creamas_sc.errors.EncodeError",
    ]
    assert "raised in act" in caught.value.failures[wrong[0]].traceback_text
    with pytest.raises(AgentErrors):
        await menv.trigger_all()
    assert [artifact.obj for artifact in menv.artifacts] == [1, 11, 2, 12]


@pytest.mark.parametrize("seed", [7])
async def test_the_seed_fixes_each_agents_numbers_wherever_it_lives(
    menv: MultiEnvironment, seed: int
) -> None:
    spread = [await (await menv.spawn(Echo))[0].draw(3) for _ in range(4)]
    async with MultiEnvironment(("localhost", 0), Environment, seed=seed) as other:
        await other.spawn_slaves([("localhost", 0)], Environment, agents.Manager)
        together = [await proxy.draw(3) for proxy, _ in await other.spawn_n(Echo, 4)]
    assert together == spread
    assert len({tuple(numbers) for numbers in spread}) == 4


async def test_a_run_without_a_seed_can_be_repeated(menv: MultiEnvironment) -> None:
    for _ in range(2):
        await menv.spawn(agents.Draws)
    draws = await menv.gather("draws")
    assert (await menv.close(as_coro=True)).seed == menv.seed
    with uses_shared_supervisor():
        again = MultiEnvironment(("localhost", 0), Environment, seed=menv.seed)
    async with again:
        await again.spawn_slaves([("localhost", 0)] * 2, Environment, agents.Manager)
        for _ in range(2):
            await again.spawn(agents.Draws)
        assert list((await again.gather("draws")).values()) == list(draws.values())


async def test_an_ordinary_close_needs_no_signal(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with MultiEnvironment(("localhost", 0), Environment) as menv:
            await menv.spawn_slaves(
                [("localhost", 0)] * 2, agents.SavingEnvironment, agents.Manager
            )
            manager = await menv.connect(menv.addrs[0])
            pid = await manager.pid()
            report = await menv.close(folder=str(tmp_path / "of" / "all"), as_coro=True)
            assert [(r.exit_code, r.signal, r.ended_by) for r in report] == [
                (0, None, "request")
            ] * 2
            assert report.graceful
            assert report[0].pid == pid
            assert await menv.close(as_coro=True) is report
    assert sorted(tmp_path.rglob("saved-*")) == [
        tmp_path / "of" / "all" / f"slave-{index}" / f"saved-{slave.pid}"
        for index, slave in enumerate(report)
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of another user")
async def test_a_close_follows_no_link_of_another_user(tmp_path: Path) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    for folder in (shared, elsewhere):
        folder.mkdir()
    shared.chmod(0o777)
    link = shared / "slave-1"
    link.symlink_to(elsewhere)
    os.lchown(link, 65534, 65534)
    with trio.fail_after(30):
        async with MultiEnvironment(("localhost", 0), Environment) as menv:
            await menv.spawn_slaves(
                [("localhost", 0)] * 2, agents.SavingEnvironment, agents.Manager
            )
            with pytest.raises(BadValue, match=f"{link} belongs to the user 65534"):
                await menv.close(folder=str(shared), as_coro=True)
            assert len(await menv.close(folder=str(tmp_path / "own"), as_coro=True)) == 2
    assert [path.parent.name for path in sorted(tmp_path.rglob("saved-*"))] == [
        "slave-0", "slave-1",
    ]  # fmt: skip
    assert not list(elsewhere.iterdir())


async def test_stop_slaves_ends_their_processes_and_no_more(menv: MultiEnvironment) -> None:
    await menv.spawn(Echo)
    report = await menv.stop_slaves(timeout=2)
    assert [slave.graceful for slave in report] == [True, True]
    for slave in report:
        assert not Path(f"/proc/{slave.pid}").exists()
    assert menv.addrs == []
    with pytest.raises(NoSlaves, match="spawn_slaves"):
        await menv.trigger_all()
    await menv.spawn_slaves([("localhost", 0)], Environment, agents.Manager)
    await menv.spawn(Counter)
    assert await menv.trigger_all() == [1]


async def test_wait_slaves(menv: MultiEnvironment) -> None:
    assert await menv.wait_slaves(5)
    assert await menv.wait_slaves(5, check_ready=True)
    assert await menv.is_ready()
    await menv.spawn_slaves(
        [("localhost", 0)], agents.LateEnvironment, agents.Manager, [{"late": 3}]
    )
    assert not await menv.is_ready()
    assert await menv.wait_slaves(5, check_ready=True)


async def test_wait_slaves_gives_up_at_its_timeout(menv: MultiEnvironment) -> None:
    await menv.spawn_slaves(
        [("localhost", 0)], agents.LateEnvironment, agents.Manager, [{"late": 10**6}]
    )
    assert await menv.wait_slaves(0.1, check_ready=True) is False
    assert await menv.wait_slaves(0.1) is True


async def test_before_there_are_slaves() -> None:
    async with MultiEnvironment(("localhost", 0), Environment) as menv:
        for call in (menv.wait_slaves(1), menv.trigger_all(), menv.trigger_act("x")):
            with pytest.raises(NoSlaves, match=r"was spawn_slaves\(\) awaited"):
                await call


@pytest.mark.parametrize(
    ("env_cls", "mgr_cls", "told"),
    [
        (
            "subprocess:Popen",
            "creamas_sc.mp:EnvManager",
            "env_cls: subprocess:Popen .* Environment",
        ),
        ("creamas_sc:Environment", "builtins:list", "mgr_cls: builtins:list .* of Manager"),
    ],
)
async def test_slaves_call_environments_and_managers_only(
    env_cls: str, mgr_cls: str, told: str
) -> None:
    async with MultiEnvironment(("localhost", 0), Environment) as menv:
        with trio.fail_after(30), pytest.raises(StartError, match=told):
            await menv.spawn_slaves([("localhost", 0)], env_cls, mgr_cls)


async def test_a_taken_port_fails_the_call_and_leaves_nothing(menv: MultiEnvironment) -> None:
    taken = split_address(menv.addrs[0])[1]
    addrs = menv.addrs
    with pytest.raises(StartError, match=rf"localhost:{taken}.*port is taken"):
        await menv.spawn_slaves(
            [("localhost", 0), ("localhost", taken)], Environment, agents.Manager
        )
    assert menv.addrs == addrs
    await menv.spawn(Counter)
    assert await menv.trigger_all() == [1]


async def test_slave_kwargs_of_the_wrong_length_are_refused_before_anything_starts() -> None:
    async with MultiEnvironment(("localhost", 0), Environment) as menv:
        with pytest.raises(ValueError, match="1 items for 2"):
            await menv.spawn_slaves([("localhost", 0)] * 2, Environment, agents.Manager, [{}])
        with pytest.raises(ValueError, match=r"slave_addrs: .* is not an address"):
            await menv.spawn_slaves(["localhost"], Environment, agents.Manager)  # type: ignore[list-item]
        assert menv._slaves.supervisor is None


async def test_destroy_warns(menv: MultiEnvironment) -> None:
    with pytest.warns(DeprecationWarning, match="use close"):
        await menv.destroy(as_coro=True)


async def test_sync_forms_say_so_on_the_home_loop(menv: MultiEnvironment) -> None:
    for call in (menv.close, menv.get_agents, menv.get_connections):
        with pytest.raises(RuntimeError, match="await the async form"):
            call()


class TestTheMasterEnvironment:
    async def test_has_agents_of_its_own(self, menv: MultiEnvironment) -> None:
        agent = CreativeAgent(menv.env)
        echo, _ = await menv.spawn(Echo)
        proxy = await echo.ask(agent.addr, 1)
        assert proxy == (0.0, None)


@pytest.mark.parametrize("many", [2, 20])  # the latter travel as columns
@also_free
async def test_what_cannot_be_decoded_is_its_agents_failure(
    menv: MultiEnvironment, many: int
) -> None:
    for addr in menv.addrs:
        await menv.spawn_n(Gives, many, addr=addr)
    bad = [addr[:-1] + "2" for addr in menv.addrs]
    for acting in (menv.trigger_all(2), menv.gather("give_homebound", 2)):
        with pytest.raises(AgentErrors) as caught:
            await acting
        assert list(caught.value.failures) == bad
        assert {"far from home" in str(error) for error in caught.value.failures.values()} == {True}
        good: list[tuple[int, list[Any]]]
        good = [(number, []) for number in range(1, many + 1) if number != 2] * 2
        results = caught.value.results
        assert (list(results.values()) if isinstance(results, dict) else results) == good
    with pytest.raises(AgentErrors) as caught:
        await menv.gather("give_homebound", 2, addrs=bad[:1])
    assert list(caught.value.failures) == bad[:1]
    agent = await menv.connect(bad[0])
    with pytest.raises(DecodeError, match=f"the reply of give_homebound of {bad[0]} .*from home"):
        await agent.give_homebound(2)


@pytest.mark.slow
async def test_that_slaves_say_where_their_code_is_changes_nothing() -> None:
    def look(pids: list[int], answers: list[Answer], stop: threading.Event) -> None:
        while not stop.is_set():
            answers += ask(pids, 5)

    async def take_steps(watched: bool) -> tuple[list[Any], list[Answer]]:
        answers: list[Answer] = []
        stop = threading.Event()
        with trio.fail_after(60):
            async with MultiEnvironment(("localhost", 0), Environment, seed=3) as menv:
                await menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager)
                addrs = [(await menv.spawn(agents.Judge))[1] for _ in range(6)]
                pids = menv.overview().pids
                async with trio.open_nursery() as nursery:
                    if watched:
                        nursery.start_soon(trio.to_thread.run_sync, look, pids, answers, stop)
                    results = [await menv.trigger_all(addrs) for _ in range(40)]
                    stop.set()
                assert menv.last_step == StepReport(True)
        return results, answers

    results, _ = await take_steps(watched=False)
    again, answers = await take_steps(watched=True)
    assert again == results
    assert len(answers) > 10
    assert all(answer.report is not None and not answer.problem for answer in answers)
    places = [place for each in answers if each.report for place in each.report["places"]]
    assert any("Judge" in agent for place in places for agent in place["agents"])
