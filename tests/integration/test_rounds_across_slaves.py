"""Steps in rounds over real slaves: one seed, one result; and the promises that steps keep."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import Artifact, CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.errors import (
    AgentErrors,
    BadValue,
    DecodeError,
    EncodeError,
    NotExposed,
    SlaveLost,
    StepOverran,
    UnknownAgent,
)
from creamas_sc.mp import EnvManager, MultiEnvManager, StepReport
from tests.support.shared_supervisor import uses_shared_supervisor

pytestmark = pytest.mark.usefixtures("shared_supervisor")
ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 30


class Odd:
    """Can be sent and not be received."""

    def _wire_state_(self) -> dict[str, Any]:
        return {}

    @classmethod
    def _from_wire_state_(cls, state: dict[str, Any]) -> Odd:
        raise ValueError("odd")


class Member(CreativeAgent):
    """Asks others, in a way that shows every difference in order; does what it is asked to."""

    def __init__(self, environment: Environment, seconds: float = 0) -> None:
        super().__init__(environment)
        self.others: list[str] = []
        self.asked = 0
        self.seconds = seconds
        self.cancelled = False
        self.waiting = trio.Event()

    @expose
    def meet(self, others: list[str]) -> None:
        self.others = others

    @expose
    def own_number(self) -> Any:
        return self.number

    @expose
    def pid(self) -> int:
        return os.getpid()

    @expose
    async def judge(self, value: float, depth: int) -> tuple[float, int]:
        self.asked += 1
        mine = self.rng.random()
        if depth:
            other = await self.env.connect(self.rng.choice(self.others))
            mine += (await other.judge(value, depth - 1))[0]
        return mine, self.asked

    @expose
    async def wait(self) -> bool:
        try:
            await trio.sleep(60)
        finally:
            self.cancelled = True
        return True

    @expose
    def was_cancelled(self) -> bool:
        return self.cancelled

    @expose
    def wake(self) -> None:
        self.waiting.set()

    @expose
    def is_waiting(self) -> bool:
        return self.waiting.statistics().tasks_waiting > 0

    @expose
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @expose
    async def show(self) -> tuple[float, int]:
        judged = await self.judge(0.5, 2)
        self.publish(Artifact(self, judged[0], domain=float))
        return judged

    @expose
    def say(self, value: Any) -> Any:
        return value

    @expose
    def odd(self) -> Odd:
        return Odd()

    def secret(self) -> None:
        """Not for others."""

    async def next_one(self) -> Any:
        return await self.env.connect(self.others[0])

    @expose
    async def act(self, what: str = "judge", who: int | None = None) -> Any:
        if who not in (None, self.number):
            return None
        other = await self.next_one()
        match what:
            case "judge":
                judged = [await other.judge(0.5, depth) for depth in range(3)]
                self.publish(Artifact(self, judged[0][0], domain=float))
                return judged
            case "wait":
                with trio.move_on_after(0.2):
                    await other.wait()
                return "gave up"
            case "wait for good":
                return await other.wait()
            case "hold":
                await self.waiting.wait()
                return "woken"
            case "wake":
                if self.number == 0:
                    await self.waiting.wait()
                    return "woken"
                if self.number == 1:
                    first = await self.env.connect(self.others[-1])
                    await first.wake()
                return None
            case "kill":
                await other.die()
            case "secret":
                await other.secret()
            case "nobody":
                address, _, _ = self.others[0].rpartition("/")
                await (await self.env.connect(f"{address}/99")).say(1)
            case "object":
                await other.say(object())
            case "sends odd":
                await other.say(Odd())
            case "gets odd":
                await other.odd()
            case "large":
                sent = bytes(30_000_000)
                return [await other.say(sent) == sent for _ in range(2)]
        raise AssertionError(what)


class Host(MultiEnvManager):
    """Numbers what is reported, and keeps it as artifacts."""

    count = 0

    @expose
    async def handle(self, msg: Any) -> Any:
        self.count += 1
        agent = await self.env.connect(msg.creator)
        self.menv.add_artifact(msg)
        return self.count, await agent.judge(0.5, 1)

    @expose
    async def numbers(self) -> list[Any]:
        return [*(await self.menv.gather("own_number")).values()]


class ReportingMember(Member):
    """Reports to the host manager, at a moment of its own."""

    @expose
    async def act(self, what: str = "report", who: int | None = None) -> Any:
        if who not in (None, self.number):
            return None
        await trio.sleep(random.random() / 30)
        if what == "numbers":
            host = await self.env.connect(self.env.manager.host_manager())
            return await host.numbers()
        report = await self.env.manager.report(Artifact(self, self.number, domain=int))
        found = await self.env.get_artifacts()
        return report, len(found)


@asynccontextmanager
async def society(
    slaves: int,
    members: int = 4,
    kind: type[Member] = Member,
    own_tree: bool = False,
    **kwargs: Any,
) -> AsyncIterator[MultiEnvironment]:
    """A multi-environment in rounds, with members dealt out to its slaves."""
    with trio.fail_after(BOUND_SECONDS):
        with nullcontext() if own_tree else uses_shared_supervisor():
            kwargs = {"seed": 5, **kwargs}
            menv = MultiEnvironment(ANY_PORT, Environment, calls="rounds", **kwargs)
        async with menv:
            await menv.spawn_slaves([ANY_PORT] * slaves, Environment, EnvManager)
            if menv.manager is not None:
                await menv.set_host_managers()
            addrs = [(await menv.spawn(kind))[1] for _ in range(members)]
            for number, addr in enumerate(addrs):
                member = await menv.connect(addr)
                await member.meet(addrs[number + 1 :] + addrs[:number])
            yield menv


async def test_one_seed_gives_the_same_at_any_number_of_slaves() -> None:
    seen = []
    for slaves in (1, 2, 3):
        async with society(slaves, members=5) as menv:
            results = [await menv.trigger_all() for _ in range(3)]
            seen.append((results, [artifact.obj for artifact in menv.artifacts]))
    assert len(seen[0][1]) == 15
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]


@pytest.mark.slow
async def test_one_seed_gathers_the_same_at_any_number_of_slaves() -> None:
    seen = []
    for slaves in (1, 2, 3):
        async with society(slaves, members=5) as menv:
            results = [[*(await menv.gather("show")).values()] for _ in range(3)]
            addrs = [*await menv.get_numbers(as_coro=True)]
            some = await menv.gather("judge", 0.5, 2, addrs=addrs[3:0:-2])
            assert list(some) == [addrs[3], addrs[1]]
            results += [[*some.values()], await menv.trigger_all()]
            seen.append((results, [artifact.obj for artifact in menv.artifacts]))
    assert len(seen[0][1]) == 20
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]


@pytest.mark.slow
async def test_the_host_manager_serves_calls_in_an_order_that_repeats_itself() -> None:
    seen = []
    for slaves in (1, 2, 3, 2):
        async with society(slaves, 6, ReportingMember, mgr_cls=Host) as menv:
            results = [await menv.trigger_all() for _ in range(3)]
            results.append([await menv.trigger_all("numbers", 4)])
            seen.append((results, [artifact.obj for artifact in menv.artifacts]))
    assert len(seen[0][1]) == 18
    assert seen[0][0][-1][0][4] == list(range(6))
    assert seen == [seen[0]] * 4


async def test_gathers_that_fail_name_agents_in_the_order_of_spawning() -> None:
    async with society(2) as menv:
        addrs = [*await menv.get_numbers(as_coro=True)]
        with pytest.raises(AgentErrors, match="failed in odd") as failed:
            await menv.gather("odd")
        assert list(failed.value.failures) == addrs
        with pytest.raises(NotExposed, match="secret"):
            await menv.gather("secret")
        with pytest.raises(ValueError, match="is not a slave's manager"):
            await menv.gather("pid", addrs=["tcp://localhost:1/1"])
        assert await menv.gather("pid", addrs=[]) == {}
        assert list(await menv.gather("judge", 0.5, 2)) == addrs


async def test_a_gather_in_a_step_does_not_wait_for_it() -> None:
    async with society(2) as menv, trio.open_nursery() as nursery:
        nursery.start_soon(menv.trigger_all, "hold")
        await trio.testing.wait_all_tasks_blocked()
        assert menv.in_step
        assert list((await menv.gather("own_number")).values()) == [0, 1, 2, 3]
        await menv.gather("wake")


async def test_a_gather_that_a_slave_does_not_survive() -> None:
    async with society(3, members=6) as menv:
        addrs = [*await menv.get_numbers(as_coro=True)]
        with pytest.raises(SlaveLost):
            await menv.gather("die", addrs=addrs[1:2])
        others = [addr for number, addr in enumerate(addrs) if number % 3 != 1]
        assert list(await menv.gather("own_number")) == others
        assert list((await menv.get_numbers(as_coro=True)).values()) == [0, 2, 3, 5]


async def test_a_cancelled_gather_ends_in_all_slaves() -> None:
    async with society(2) as menv:
        with trio.move_on_after(0.3) as scope:
            await menv.gather("wait")
        assert scope.cancelled_caught
        assert [*(await menv.gather("was_cancelled")).values()] == [True] * 4
        assert len(await menv.trigger_all()) == 4


async def test_a_host_manager_in_a_step_that_overruns_or_loses_a_slave() -> None:
    async with society(3, 6, mgr_cls=Host) as menv:
        with pytest.raises(StepOverran) as late:
            await menv.trigger_all_within(0.3, "hold")
        assert len(late.value.addresses) == 6
        with pytest.raises(SlaveLost):
            await menv.trigger_all("kill", 0)
        assert len(await menv.trigger_all("judge", -1)) == 4
        with trio.move_on_after(0.3) as scope:
            await menv.trigger_all("wait for good", 2)
        assert scope.cancelled_caught
        assert len(await menv.trigger_all("judge", -1)) == 4


@pytest.mark.slow
async def test_gathers_wait_for_one_another() -> None:
    seen = []
    for _ in range(2):
        values: list[Any] = []
        async with society(2) as menv:

            async def gather(menv: MultiEnvironment = menv, to: list[Any] = values) -> None:
                to.append([*(await menv.gather("judge", 0.5, 2)).values()])

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(gather)
        seen.append(values)
    assert seen[0] == seen[1]


async def test_agents_and_connections_are_in_the_order_of_spawning() -> None:
    async with society(3, members=7) as menv:
        addrs = await menv.get_agents(as_coro=True)
        numbers = [await (await menv.connect(addr)).own_number() for addr in addrs]
        assert numbers == list(range(7))
        proxies = await menv.get_agents(addr=False, as_coro=True)
        assert [proxy.addr for proxy in proxies] == addrs
        connections = await menv.get_connections(as_coro=True)
        assert [addr for addr, _ in connections] == addrs


async def test_failures_and_late_agents_are_in_the_order_of_spawning() -> None:
    async with society(2) as menv:
        first, second = [await agents_of(menv, slave) for slave in menv.addrs]
        in_order = [addr for pair in zip(first, second, strict=True) for addr in pair]
        with pytest.raises(StepOverran) as late:
            await menv.trigger_all_within(0.3, "hold")
        assert late.value.addresses == in_order
        with pytest.raises(AgentErrors) as failed:
            await menv.trigger_all("secret")
        assert list(failed.value.failures) == in_order
        with pytest.raises(AgentErrors) as one:
            await menv.trigger_all("secret", 2)
        assert one.value.results == [None, None, None]


async def agents_of(menv: MultiEnvironment, manager: str) -> list[str]:
    return list(await (await menv.connect(manager)).get_agents())


async def proxy(menv: MultiEnvironment, number: int) -> Any:
    """The member of that number, of two slaves."""
    addrs = await agents_of(menv, menv.addrs[number % 2])
    return await menv.connect(addrs[number // 2])


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        ("secret", NotExposed, r"secret of .* is not exposed"),
        ("nobody", UnknownAgent, r"there is no agent"),
        ("object", EncodeError, r"args\[0\]: cannot carry object"),
        ("sends odd", DecodeError, r"_from_wire_state_ failed: ValueError: odd"),
        ("gets odd", DecodeError, r"_from_wire_state_ failed: ValueError: odd"),
    ],
)
async def test_a_call_that_is_refused_fails_for_its_caller_alone(
    what: str, error: type[Exception], text: str
) -> None:
    async with society(2) as menv:
        first = (await agents_of(menv, menv.addrs[0]))[0]
        with pytest.raises(AgentErrors) as failed:
            await menv.trigger_all(what, 0)
        assert [(e.address, e.type_name) for e in failed.value.failures.values()] == [
            (first, f"creamas_sc.errors.{error.__name__}")
        ]
        assert re.search(text, failed.value.failures[first].message)
        assert failed.value.results == [None] * 3
        assert len(await menv.trigger_all()) == 4


async def test_large_arguments_and_results_travel() -> None:
    async with society(2, members=2) as menv:
        assert await menv.trigger_all("large") == [[True, True], [True, True]]


async def test_a_call_that_is_given_up_is_cancelled_where_it_is_served() -> None:
    async with society(2) as menv:
        assert await menv.trigger_all("wait", 0) == ["gave up", None, None, None]
        assert await (await proxy(menv, 1)).was_cancelled()


async def test_calls_of_a_cancelled_step_are_cancelled() -> None:
    async with society(2) as menv:
        with trio.move_on_after(0.3) as scope:
            await menv.trigger_all("wait for good")
        assert scope.cancelled_caught
        assert [await (await proxy(menv, n)).was_cancelled() for n in range(4)] == [True] * 4
        assert len(await menv.trigger_all()) == 4


async def test_an_act_may_wait_for_what_another_agents_call_brings(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with society(2, own_tree=True) as menv:
        assert await menv.trigger_all("wake") == ["woken", None, None, None]
    assert "the step may not repeat itself" in capfd.readouterr().err


@pytest.mark.parametrize("slaves", [2, 3])
async def test_a_slave_that_dies_takes_only_its_own_agents(slaves: int) -> None:
    async with society(slaves, members=2 * slaves) as menv:
        with pytest.raises(SlaveLost):
            await menv.trigger_all("kill", 0)
        assert len(await menv.trigger_all("judge", -1)) == 2 * (slaves - 1)
        with pytest.raises(AgentErrors) as failed:  # some ask agents that are gone
            await menv.trigger_all()
        assert all("SlaveLost" in str(each) for each in failed.value.failures.values())


async def test_a_restarted_slave_takes_part() -> None:
    async with society(2, restart="permanent") as menv:
        with pytest.raises(SlaveLost):
            await menv.trigger_all("kill", 0)
        assert await menv.trigger_all("judge", -1) == [None] * 4
        second = await agents_of(menv, menv.addrs[1])
        for number in range(4):
            await (await proxy(menv, number)).meet(second)
        assert (await menv.trigger_all("judge", 0))[0][0][1] == 1


class Alone(Environment):
    """Its agents do not act."""

    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        return []


class Twice(Environment):
    """Its agents act twice, of which the first time goes in rounds."""

    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [
            *await super().trigger_all(*args, **kwargs),
            *await super().trigger_all("judge", -1),
        ]


@pytest.mark.parametrize(("kind", "more"), [(Alone, 0), (Twice, 4)])
async def test_environments_with_a_trigger_all_of_their_own(
    kind: type[Environment], more: int
) -> None:
    async with society(1, members=2) as menv:
        await menv.spawn_slaves([ANY_PORT], kind, EnvManager)
        for _ in range(2):
            await menv.spawn(Member, addr=menv.addrs[1])
        for _ in range(2):
            assert len(await menv.trigger_all("judge", -1)) == 2 + more


async def test_how_calls_go_can_be_changed_between_steps() -> None:
    async with society(2) as menv:
        assert menv.calls == "rounds"
        menv.calls = "free"
        assert len(await menv.trigger_all()) == 4
        with pytest.raises(BadValue, match='calls must be "rounds" or "free"'):
            menv.calls = "ronds"
        assert menv.calls == "free"


async def test_a_step_says_whether_it_repeats_itself_and_why_not() -> None:
    async with society(2) as menv:
        assert menv.last_step is None
        await menv.trigger_all()
        with pytest.raises(AgentErrors):
            await menv.trigger_all("secret")
        assert menv.last_step == StepReport(True)
        first = (await agents_of(menv, menv.addrs[0]))[0]
        await menv.trigger_all("wake")
        held = f"a round ended while {first} waited for something that no call brought"
        assert menv.last_step == StepReport(False, (held,))
        await menv.trigger_all()
        assert menv.last_step == StepReport(True)
        menv.calls = "free"
        await menv.trigger_all()
        assert menv.last_step == StepReport(None)


async def test_a_call_from_outside_makes_a_step_not_repeatable() -> None:
    async with society(2) as menv, trio.open_nursery() as nursery:
        nursery.start_soon(menv.trigger_all, "hold", 0)
        first = await proxy(menv, 0)
        while not await first.is_waiting():
            await trio.lowlevel.checkpoint()
        manager = await menv.connect(menv.addrs[0])
        await manager.gather("own_number")
        await first.wake()
        while menv.in_step:
            await trio.lowlevel.checkpoint()
        assert menv.last_step is not None
        assert menv.last_step.repeatable is False
        for what in (f"wake of {first.addr}", f"gather of {manager.addr}"):
            assert f"{what} was called from outside the step" in menv.last_step.why
        await menv.trigger_all("judge", -1)
        assert menv.last_step == StepReport(True)


async def test_a_step_that_is_cut_short_is_not_repeatable() -> None:
    async with society(2) as menv:
        addrs = await menv.get_agents(as_coro=True)
        with pytest.raises(StepOverran):
            await menv.trigger_all_within(0.3, "hold")
        why = f"the step's time was up before these had acted: {', '.join(addrs)}"
        assert menv.last_step == StepReport(False, (why,))
        with trio.move_on_after(0.3):
            await menv.trigger_all("wait for good")
        assert menv.last_step == StepReport(False, ("the step was cut short",))
        await menv.trigger_all_within(30, "judge", -1)
        assert menv.last_step == StepReport(True)


async def test_a_step_with_a_loss_is_not_repeatable_nor_one_after_a_restart() -> None:
    async with society(2, restart="permanent") as menv:
        with pytest.raises(SlaveLost) as lost:
            await menv.trigger_all("kill", 0)
        assert menv.last_step is not None
        assert menv.last_step.repeatable is False
        why = menv.last_step.why
        assert str(lost.value) in why
        await menv.trigger_all("judge", -1)
        restarted = f"{menv.restarts[0].cause}; it was started again"
        assert restarted in {*why, *menv.last_step.why}
        await menv.trigger_all("judge", -1)
        assert menv.last_step == StepReport(True)


async def test_a_host_manager_that_takes_part_keeps_what_slaves_say_of_a_step() -> None:
    async with society(2, mgr_cls=MultiEnvManager) as menv:
        await menv.set_host_managers()
        await menv.trigger_all("judge", -1)
        assert menv.last_step == StepReport(True)
        await menv.trigger_all("wake")
        assert menv.last_step is not None
        assert [why[:25] for why in menv.last_step.why] == ["a round ended while tcp://"[:25]]
        await menv.trigger_all("judge", -1)
        assert menv.last_step == StepReport(True)
