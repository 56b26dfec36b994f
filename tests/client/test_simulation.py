"""Every operation of a simulation, and its agents."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from traceback import extract_tb
from typing import Any

import pytest

from creamas_sc.client import connect_sync
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    BadValue,
    CallRefused,
    CreamasError,
    DeadlineExceeded,
    EncodeError,
    LoadError,
    NoSlaves,
    NotExposed,
    SlaveLost,
    StepOverran,
    UnknownAgent,
)
from tests.support.clients import (
    BOUND_SECONDS,
    SOCIETY,
    Named,
    connected,
    each_client,
    plain,
    studio,
)
from tests.support.values import Point, Sketch, Stranger

PAINTER = f"{SOCIETY}:Painter"
VALUES: list[Any] = [
    None,
    (1, [2.5, {"three": {4}}], b"5"),
    {(1, 2): frozenset({3})},
    2**100,
    Decimal("1.5"),
    Point(1, 2),
    b"x" * 100_000,
]


def test_an_error_has_few_frames_of_a_blocking_client(named: Named) -> None:
    name = named()
    with connect_sync(timeout=BOUND_SECONDS) as client:
        client.create(name)
        with client.attach(name) as sim, pytest.raises(NoSlaves) as caught:
            sim.trigger_all()
        client.kill(name)
    frames = [frame.name for frame in extract_tb(caught.value.__traceback__)]
    assert frames == [frames[0], "method", "_invoke"]


@each_client
async def test_properties(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        assert await sim.get_name() == sim.name
        async with connected(kind) as client:
            host = (await client.inspect(sim.name))["host"]
        assert await sim.get_seed() == host["seed"] >= 0
        with pytest.raises(CreamasError, match="set seed before spawn_slaves"):
            await sim.set_seed(3)
        assert await sim.get_addrs() == await sim.get_slave_managers()
        assert await sim.get_age() == 0
        assert await sim.set_age(7) is None
        assert await sim.get_age() == 7
        assert await sim.get_in_step() is False
        assert await sim.check_ready() is True
        assert await sim.is_ready() is True
        assert await sim.wait_slaves(5, check_ready=True) is True


@each_client
async def test_agents(kind: str, named: Named) -> None:
    async with studio(kind, named, slaves=2) as sim:
        painter, addr = await sim.spawn(PAINTER, style="cubist")
        assert painter.addr == addr
        assert "PainterProxy(" in repr(plain(painter))
        pair = await sim.spawn_n(PAINTER, 2)
        addrs = [addr for _, addr in pair]
        assert sorted(await sim.get_agents()) == sorted([addr, *addrs])
        assert len(await sim.get_agents(agent_cls=PAINTER)) == 3
        assert list((await sim.get_numbers()).items()) == [(addr, 0), (addrs[0], 1), (addrs[1], 2)]
        assert await sim.get_agents(agent_cls=f"{SOCIETY}:Sleeper") == []
        proxies = await sim.get_agents(addr=False)
        assert {proxy.addr for proxy in proxies} == {addr, *addrs}
        assert painter in proxies
        assert await sim.connect(addr) == painter
        assert await sim.trigger_act(addr) == ((), {})
        assert await sim.trigger_all(1, b=(2,)) == [((1,), {"b": (2,)})] * 3
        some = [addr, addrs[0]]
        assert await sim.gather("echo", 1, b=2) == dict.fromkeys([*addrs, addr], ((1,), {"b": 2}))
        assert list(await sim.gather("echo", addrs=some)) == some
        with pytest.raises(AgentErrors, match="2 of the agents failed in fail") as caught:
            await sim.gather("fail", "no", addrs=some)
        assert list(caught.value.failures) == some
        assert caught.value.results == {}
        with pytest.raises(NotExposed):
            await sim.gather("secret")
        # Through a proxy, also as a value.
        assert await painter.itself() == painter
        assert await painter.ask(pair[0][0], 5) == ((5,), {})


@each_client
async def test_values(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        painter, _ = await sim.spawn(PAINTER)
        for value in VALUES:
            (back,), kwargs = await painter.echo(value, key=value)
            assert (back, type(back)) == (value, type(value))
            assert kwargs == {"key": value}
        (back,), _ = await painter.echo(Sketch("me", [1], "plain"))
        assert (back, back.style) == (Sketch("me", [1], "plain"), "plain")
        for ask in (painter.echo, sim.trigger_all):
            with pytest.raises(EncodeError, match=r"^args\[1\]\['odd'\]: .*\.Stranger:"):
                await ask(1, {"odd": Stranger()})


@each_client
async def test_artifacts(kind: str, named: Named) -> None:
    async with studio(kind, named, slaves=2) as sim:
        await sim.spawn_n(PAINTER, 2)
        await sim.trigger_all()
        await sim.add_artifact(Sketch("me", 1, "mine"))
        await sim.add_artifacts([Sketch("me", 2, "mine"), Sketch("you", 3, "yours")])
        found = await sim.get_artifacts()
        assert [type(each) for each in found] == [Sketch] * 5
        assert [each.obj for each in await sim.get_artifacts("me")] == [1, 2]
        page = await sim.get_artifacts(since=1, limit=2)
        assert page == found[1:3]


@each_client
async def test_connections(kind: str, named: Named) -> None:
    async with studio(kind, named, slaves=2) as sim:
        addrs = [(await sim.spawn(PAINTER))[1] for _ in range(2)]
        await sim.create_connections({addrs[0]: [(addrs[1], {"trust": 1})]})
        seen = dict(await sim.get_connections())
        assert seen == {addrs[0]: {addrs[1]: {"trust": 1}}, addrs[1]: {}}
        assert dict(await sim.get_connections(data=False))[addrs[0]] == [addrs[1]]


@each_client
async def test_slaves_later(kind: str, named: Named) -> None:
    async with studio(kind, named, slaves=0) as sim:
        with pytest.raises(NoSlaves):
            await sim.trigger_all()
        curator = f"{SOCIETY}:Curator"
        environment = "creamas_sc.core.environment:Environment"
        await sim.spawn_slaves([("localhost", 0)], environment, curator)
        (addr,) = await sim.get_addrs()
        assert await sim.set_host_managers() == [None]
        assert await sim.set_host_manager(addr) is None
        manager = await sim.connect(addr)
        assert await manager.pid() > 0
        report = await sim.stop_slaves(timeout=2)
        assert [slave.address for slave in report] == [addr]
        assert await sim.save_info("folder") == ("saved", "folder")


@each_client
async def test_methods_of_a_subclass(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        await sim.spawn(PAINTER)
        assert await sim.call("count", extra=2) == 3
        assert await sim.call("host_pid") == sim.pid
        with pytest.raises(CallRefused, match="save_info"):
            await sim.call("save_info", None)
        with pytest.raises(CallRefused, match="nothing"):
            await sim.call("nothing")


@each_client
async def test_errors_of_agents(kind: str, named: Named) -> None:
    async with studio(kind, named, slaves=2) as sim:
        painter, addr = await sim.spawn(PAINTER)
        with pytest.raises(AgentError) as caught:
            await painter.fail("boo")
        error = caught.value
        assert (error.address, error.type_name, error.message) == (addr, "ValueError", "boo")
        assert "in fail" in error.traceback_text
        with pytest.raises(NotExposed, match="secret"):
            await painter.secret()
        with pytest.raises(BadArguments):
            await painter.pid(1)
        with pytest.raises(UnknownAgent, match="/99"):
            await sim.connect(addr.rpartition("/")[0] + "/99")
        with pytest.raises(LoadError, match="Nobody"):
            await sim.spawn(f"{SOCIETY}:Nobody")
        with pytest.raises(AgentError, match="not made"):
            await sim.spawn(f"{SOCIETY}:Failing", "init")
        with pytest.raises(BadValue, match="n must be an int"):
            await sim.spawn_n(PAINTER, -1)
        _, failing = await sim.spawn(f"{SOCIETY}:Failing", "act")
        with pytest.raises(AgentErrors) as group:
            await sim.trigger_all()
        assert list(group.value.failures) == [failing]
        assert group.value.results == [((), {})]


@each_client
async def test_a_lost_slave(kind: str, named: Named) -> None:
    async with studio(kind, named, slaves=2) as sim:
        since, _ = await sim.next_events()
        killer, addr = await sim.spawn(f"{SOCIETY}:Killer")
        with pytest.raises(SlaveLost) as caught:
            await killer.act()
        assert caught.value.signal == 9
        last, events = await sim.next_events(since, timeout=5)
        (number, name, details) = events[-1]
        assert (number, name, details["signal"]) == (last, "slave_lost", 9)
        assert addr.startswith(details["address"].rpartition("/")[0])
        assert (await sim.progress())["slaves"] == 1


# ---- a simulation that steps by itself


@each_client
async def test_steps(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        await sim.spawn(PAINTER)
        assert (await sim.progress())["state"] == "idle"
        started = await sim.start_steps(20)
        assert (started["state"], started["of"]) == ("stepping", 20)
        done = await sim.wait_steps(timeout=20)
        assert (done["state"], done["step"], done["age"]) == ("idle", 20, 20)
        assert len(await sim.get_artifacts()) == 20
        await sim.start_steps()
        with pytest.raises(CreamasError):
            await sim.start_steps(1)
        assert (await sim.pause())["state"] == "paused"
        assert (await sim.resume())["state"] == "stepping"
        with pytest.raises(DeadlineExceeded):
            await sim.wait_steps(timeout=0.01)
        await sim.pause()
        with pytest.raises(BadValue):
            await sim.start_steps(0)


@each_client
async def test_events(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        await sim.spawn(PAINTER)
        since, _ = await sim.next_events()
        await sim.start_steps(3)
        numbers = []
        async for number, name, details in sim.events(since):
            numbers.append(number)
            assert name == "steps"
            assert (await sim.progress())["clients"] >= 1
            if details["state"] == "idle":
                break
        assert numbers == list(range(since + 1, since + 1 + len(numbers)))
        assert details["step"] == 3


@each_client
async def test_the_last_event(kind: str, named: Named) -> None:
    """The events end when the simulation does; what happened before comes first."""
    async with studio(kind, named) as sim, connected(kind) as client:
        since, _ = await sim.next_events()
        await sim.start_steps(1)
        await sim.wait_steps()
        events = sim.events(since)
        (number, name, _) = await anext(events)
        assert (number, name) == (since + 1, "steps")
        await client.close(sim.name)
        seen = [name async for _, name, _ in events]
        assert set(seen) <= {"steps"}


@each_client
async def test_a_step_in_a_limited_time(kind: str, named: Named) -> None:
    async with studio(kind, named, slaves=2) as sim:
        first, second = await sim.get_addrs()
        await sim.spawn(PAINTER, addr=first)
        _, late = await sim.spawn(f"{SOCIETY}:Sleeper", addr=first)
        _, failed = await sim.spawn(f"{SOCIETY}:Failing", "act", addr=second)
        with pytest.raises(StepOverran, match="1 of the agents") as caught:
            await sim.trigger_all_within(0.2)
        assert (caught.value.addresses, caught.value.acknowledged) == ([late], True)
        assert caught.value.results == [((), {})]
        assert list(caught.value.failures) == [failed]
        assert "KeyError" in caught.value.failures[failed].traceback_text
        with pytest.raises(BadValue, match="on_overrun"):
            await sim.trigger_all_within(1, on_overrun="forget")


@each_client
async def test_a_silent_slave(kind: str, named: Named) -> None:
    """What a stopped process has not confirmed is not reported as done."""
    async with studio(kind, named, slaves=2) as sim:
        first, second = await sim.get_addrs()
        painter, _ = await sim.spawn(PAINTER, addr=first)
        await sim.spawn(PAINTER, addr=second)
        pid = await painter.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StepOverran, match="1 of the slaves") as caught:
                await sim.trigger_all_within(0.2)
            assert (caught.value.addresses, caught.value.acknowledged) == ([first], False)
            assert caught.value.results == [((), {})]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await sim.trigger_all() == [((), {})] * 2
