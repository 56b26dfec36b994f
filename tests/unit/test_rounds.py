"""Steps in rounds of several environments in one process; see `creamas_sc.rpc.rounds`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio

from creamas_sc import CreativeAgent, Environment, expose
from creamas_sc.core.randomness import RandomSource
from creamas_sc.errors import AgentErrors, CreamasError, StepOverran
from creamas_sc.mp import EnvManager
from creamas_sc.mp.managers import SPAWN_INDEX
from creamas_sc.rpc.rounds.frames import Frames
from creamas_sc.runtime.event_loop import adopt_running_loop

BOUND_SECONDS = 10


class Peer(CreativeAgent):
    """Knows all agents of its society, by their number."""

    peers: Sequence[str] = ()

    def ask(self, number: int, method: str, *args: Any) -> Any:
        return self.env.network.call_agent(self.peers[number], method, args, {})

    @expose
    def echo(self, value: Any = None) -> Any:
        return value

    @expose
    async def act(self) -> Any:
        return None


def take_steps(
    agents: Sequence[type[Peer]],
    environments: int,
    *,
    steps: int = 1,
    seconds: Sequence[float | None] = (None,),
    env_cls: Callable[..., Environment] = Environment,
    meanwhile: Callable[[list[Environment]], Any] | None = None,
) -> list[Any]:
    """Make agents, dealt out over environments, act; return each one's last result or error."""

    async def run() -> list[Any]:
        results: list[Any] = [None] * len(agents)
        with trio.fail_after(BOUND_SECONDS):
            async with adopt_running_loop(), AsyncExitStack() as opened:
                envs = [env_cls(("localhost", 0)) for _ in range(environments)]
                for index, env in enumerate(envs):
                    env._random = RandomSource(1, 1 + index)
                    await env.open(EnvManager)
                    opened.push_async_callback(env.close, as_coro=True)
                made: list[Any] = []
                for number, cls in enumerate(agents):
                    manager = envs[number % environments].manager
                    made.append((await manager.spawn(cls, **{SPAWN_INDEX: number}))[0])
                for agent in made:
                    agent.peers = [other.addr for other in made]
                urls = [env.base_url for env in envs]

                async def take(index: int, step: int) -> None:
                    manager, late, failed = envs[index].manager, (), {}
                    try:
                        values = await manager.trigger_all_in_rounds(
                            step, urls, seconds[index % len(seconds)]
                        )
                    except (AgentErrors, StepOverran) as error:
                        values, failed = error.results, error.failures
                        late = getattr(error, "addresses", ())
                    values = iter(values)
                    for number in range(index, len(agents), environments):
                        addr = made[number].addr
                        if addr in late:
                            results[number] = "late"
                        else:
                            results[number] = failed[addr] if addr in failed else next(values)

                for step in range(1, steps + 1):
                    async with trio.open_nursery() as nursery:
                        for index in range(environments):
                            nursery.start_soon(take, index, step)
                        if meanwhile is not None:
                            nursery.start_soon(meanwhile, envs)
        return results

    return trio.run(run)


both = pytest.mark.parametrize("environments", [1, 2])


class Waits(Peer):
    """Waits for an event that another call sets."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.event = trio.Event()
        self.heard = False

    @expose
    async def wait(self) -> str:
        await self.event.wait()
        return "waited"

    @expose
    def set(self) -> None:
        self.heard = True
        self.event.set()


class AsksToWait(Peer):
    @expose
    async def act(self) -> Any:
        return await self.ask(0, "wait")


class Sets(Peer):
    @expose
    async def act(self) -> Any:
        return await self.ask(0, "set")


@both
def test_a_served_call_may_wait_for_the_next_one_of_its_agent(environments: int) -> None:
    assert take_steps([Waits, AsksToWait, Sets], environments) == [None, "waited", None]


class WaitsInAct(Waits):
    @expose
    async def act(self) -> Any:
        with trio.move_on_after(BOUND_SECONDS / 2):
            return await self.wait()


@both
def test_a_time_limit_around_a_wait_does_not_hold_the_round(environments: int) -> None:
    began = time.perf_counter()
    assert take_steps([WaitsInAct, Sets], environments) == ["waited", None]
    assert time.perf_counter() - began < BOUND_SECONDS / 4


class Polls(Waits):
    @expose
    async def act(self) -> Any:
        while not self.heard:
            await trio.lowlevel.checkpoint()
        return "heard"


@both
def test_an_act_may_poll_for_what_a_call_changes(environments: int) -> None:
    assert take_steps([Polls, Sets], environments) == ["heard", None]


class UsesThread(Peer):
    @expose
    async def act(self) -> Any:
        await trio.to_thread.run_sync(time.sleep, 0.2)
        return "done"


class WaitsInThread(Peer):
    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.event = threading.Event()

    @expose
    def set(self) -> None:
        self.event.set()

    @expose
    async def act(self) -> Any:
        return await trio.to_thread.run_sync(self.event.wait, BOUND_SECONDS / 2)


@both
def test_a_thread_that_waits_for_a_call_of_the_round_does_not_hold_it_for_ever(
    environments: int, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("creamas_sc.rpc.rounds.activity.OUTSIDE_SECONDS", 0.1)
    assert take_steps([WaitsInThread, Sets], environments) == [True, None]
    assert "may not repeat itself" in caplog.text


class AsksFirst(Peer):
    @expose
    async def act(self) -> Any:
        return await self.ask(0, "echo", 1)


@both
def test_a_thread_holds_the_round(environments: int, caplog: Any) -> None:
    assert take_steps([UsesThread, AsksFirst], environments) == ["done", 1]
    assert "may not repeat itself" not in caplog.text


class Limits(Peer):
    @expose
    async def act(self) -> Any:
        limiter, seen = trio.CapacityLimiter(2), []

        async def ask() -> None:
            async with limiter:
                seen.append(await self.ask(1, "echo", 1))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        return seen


@both
def test_tasks_of_an_act_may_wait_for_one_another(environments: int, caplog: Any) -> None:
    assert take_steps([Limits, Peer], environments) == [[1] * 5, None]
    assert "may not repeat itself" not in caplog.text


class Slow(Peer):
    @expose
    async def slow(self) -> int:
        await trio.sleep(0.1)
        return 1


class Relays(Peer):
    @expose
    async def relay(self) -> Any:
        return await self.ask(0, "slow")

    @expose
    def pass_on(self) -> Any:
        return self.ask(0, "echo", self.env.network.steps.rounds is not None)


class GivesUp(Peer):
    @expose
    async def act(self) -> Any:
        with trio.move_on_after(0.05):
            return await self.ask(1, "relay")
        return "gave up"


@pytest.mark.parametrize("environments", [1, 2, 3])
def test_a_call_may_be_given_up_when_its_own_call_is_answered(environments: int) -> None:
    assert take_steps([Slow, Relays, GivesUp], environments) == [None, None, "gave up"]


class BusyAtFirst(Waits):
    @expose
    async def act(self) -> Any:
        await trio.sleep(0.3)
        return self.heard

    @expose
    def has_heard(self) -> bool:
        return self.heard


class GivesUpBefore(Peer):
    @expose
    async def act(self) -> Any:
        with trio.move_on_after(0.05):
            await self.ask(0, "set")
        return "gave up"


class AsksLater(Peer):
    @expose
    async def act(self) -> Any:
        for _ in range(3):
            await self.ask(0, "echo")
        return await self.ask(0, "has_heard")


@pytest.mark.parametrize("environments", [1, 2, 3])
def test_a_call_that_is_given_up_before_it_is_served_is_not_served(environments: int) -> None:
    agents = [BusyAtFirst, GivesUpBefore, AsksLater]
    assert take_steps(agents, environments) == [False, "gave up", False]


class StartsTask(Peer):
    @expose
    async def act(self) -> Any:
        self.env.get_loop().nursery.start_soon(self.ask, 1, "echo")
        await trio.sleep(0.01)
        return "acted"


class StartsTaskAndCalls(Peer):
    @expose
    async def act(self) -> Any:
        self.env.get_loop().nursery.start_soon(self.ask, 1, "echo")
        await self.ask(1, "echo")
        return await self.ask(1, "echo", "acted")


@both
@pytest.mark.parametrize("cls", [StartsTask, StartsTaskAndCalls])
def test_tasks_started_elsewhere_may_call(cls: type[Peer], environments: int) -> None:
    assert take_steps([cls, Peer], environments) == ["acted", None]


class CleansUp(Peer):
    @expose
    async def act(self) -> Any:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                assert await self.ask(1, "echo", 1) == 1


class AsksShielded(Peer):
    @expose
    async def act(self) -> Any:
        with trio.CancelScope(shield=True):
            await self.ask(0, "sleep")


class Sleeps(Peer):
    @expose
    async def sleep(self) -> None:
        await trio.sleep(BOUND_SECONDS)


@both
def test_shielded_calls_at_the_end_of_a_step_that_is_cut_short(environments: int) -> None:
    assert take_steps([CleansUp, Peer], environments, seconds=[0.1]) == ["late", None]
    _, error = take_steps([Sleeps, AsksShielded], environments, seconds=[0.1])
    assert "the step was cut short" in str(error)


class AsksForEver(Peer):
    @expose
    async def act(self) -> Any:
        while True:
            await self.ask(-1, "echo")
            await self.ask(0, "echo")


def test_agents_are_late_where_the_time_is_up_later(caplog: Any) -> None:
    began = time.perf_counter()
    agents = [AsksForEver] * 6
    assert take_steps(agents, 3, seconds=[BOUND_SECONDS, 0.1, BOUND_SECONDS]) == ["late"] * 6
    assert time.perf_counter() - began < BOUND_SECONDS / 2
    assert take_steps([*agents, Peer], 3, seconds=[0.1], steps=3) == [*["late"] * 6, None]


def test_agents_are_late_where_the_time_is_up_before_all_are_connected() -> None:
    began = time.perf_counter()
    seconds = [BOUND_SECONDS, 0.0, BOUND_SECONDS]
    assert take_steps([AsksForEver] * 6, 3, seconds=seconds) == ["late"] * 6
    assert time.perf_counter() - began < BOUND_SECONDS / 2


class ActsNot(Environment):
    made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ActsNot.made += 1
        self.acts_not = ActsNot.made % 2

    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        return ["own"] if self.acts_not else await super().trigger_all(*args, **kwargs)


class ActsTwice(Environment):
    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        await super().trigger_all(*args, **kwargs)
        return await super().trigger_all(*args, **kwargs)


def test_an_environment_may_take_a_step_otherwise() -> None:
    agents = [Peer, AsksFirst]
    own, error = take_steps(agents, 2, steps=2, env_cls=ActsNot)
    assert own == "own"
    assert "the step was cut short" in str(error)
    assert take_steps(agents, 2, steps=2, env_cls=ActsTwice) == [None, 1]


class Unreadable:
    """Can be sent, and not be read."""


def read(_: Any) -> Any:
    raise ValueError("cannot be read")


def make_environment(addr: tuple[str, int]) -> Environment:
    return Environment(addr, extra_serializers=[lambda: (Unreadable, lambda _: 1, read)])


class Sends(Peer):
    other, first = 1, 0

    @expose
    def unreadable(self) -> Any:
        return Unreadable()

    @expose
    async def act(self) -> Any:
        seen: list[str] = []
        for _ in range(self.first):
            await self.ask(self.other, "echo")
        for method, *args in (("echo", Unreadable()), ("unreadable",)) * 2:
            try:
                await self.ask(self.other, method, *args)
            except CreamasError as error:
                seen.append(type(error).__name__)
        return seen


class SendsLater(Sends):
    other, first = 0, 1


def test_what_cannot_be_read_fails_for_its_caller_alone() -> None:
    agents = [Sends, SendsLater]
    assert take_steps(agents, 2, env_cls=make_environment) == [["DecodeError"] * 4] * 2


class TriesAll(Peer):
    @expose
    def unsendable(self) -> Any:
        return object()

    @expose
    async def act(self) -> Any:
        seen = []
        url = self.peers[0].rpartition("/")[0]
        for addr, method, *args in (
            (f"{url}/77", "echo"),
            (self.peers[0], "unknown"),
            (self.peers[0], "echo", 1, 2),
            (self.peers[0], "echo", object()),
            (self.peers[0], "unsendable"),
        ):
            try:
                await self.env.network.call_agent(addr, method, tuple(args), {})
            except CreamasError as error:
                seen.append((type(error).__name__, str(error)))
        return seen


def test_refusals() -> None:
    _, seen = take_steps([TriesAll, TriesAll], 2)
    names = ["UnknownAgent", "NotExposed", "BadArguments", "EncodeError", "EncodeError"]
    assert [name for name, _ in seen] == names
    assert seen[3][1].startswith("args[0]: ")
    assert "the reply: " in seen[4][1]


class AsksRelay(Peer):
    @expose
    async def act(self) -> Any:
        return await self.ask(1, "pass_on")


def test_a_plain_method_may_return_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creamas_sc.rpc.network.Network.call_at_once", None)
    assert take_steps([Peer, Relays, AsksRelay], 3) == [None, None, True]


async def close_second(envs: list[Environment], seconds: float) -> None:
    await trio.sleep(seconds)
    await envs[1].close(as_coro=True)


class AsksRelayOf2(Peer):
    @expose
    async def act(self) -> Any:
        return await self.ask(2, "relay")


class MadeBefore(Relays):
    @expose
    async def act(self) -> Any:
        calls = [self.ask(0, "slow"), self.ask(0, "echo"), self.ask(0, "echo"), self.ask(1, "echo")]
        seen = []
        for call in calls:
            try:
                seen.append(await call)
            except CreamasError as error:
                seen.append(type(error).__name__)
        return seen


# Seconds: while it connects to the others, and later.
@pytest.mark.parametrize("seconds", [0, 0.002, 0.05])
def test_an_environment_may_be_lost_while_it_is_served_and_before_it_is_called(
    seconds: float,
) -> None:
    agents = [Slow, AsksRelayOf2, MadeBefore]
    results = take_steps(agents, 3, meanwhile=partial(close_second, seconds=seconds))
    assert results[2] == [1, None, None, "ConnectionLost"]


class Keeps(Peer):
    kept: Any = None

    @expose
    async def act(self) -> Any:
        if self.kept is not None:
            return await self.kept
        self.kept = self.ask(1, "echo", "late")


@both
def test_a_call_may_be_awaited_in_the_next_step(environments: int) -> None:
    assert take_steps([Keeps, Peer], environments, steps=2) == ["late", None]


class WaitsForWord(Peer):
    word: trio.Event | None = None
    noted: Sequence[str] = ()

    @expose
    def say(self) -> None:
        assert self.word is not None
        self.word.set()
        self.noted = [*self.env.network.steps.noted]

    @expose
    async def act(self) -> Any:
        self.word = trio.Event()
        await self.word.wait()
        return self.noted == [f"say of {self.addr} was called from outside the step"]


@both
def test_a_call_from_outside_is_noted_for_the_step(environments: int) -> None:
    async def call(envs: list[Environment]) -> None:
        agent = envs[-1].get_agents(addr=False)[-1]
        while agent.word is None:
            await trio.lowlevel.checkpoint()
        await envs[0].network.call_agent(agent.addr, "say", (), {})

    assert take_steps([Peer, WaitsForWord], environments, meanwhile=call) == [None, True]


class AsksAgainAndAgain(Peer):
    times = 50

    @expose
    async def act(self) -> int:
        return sum([await self.ask(1, "echo", 1) for _ in range(self.times)])


# In each of a call's two rounds: of the one that has something to do, and of those that look on.
@pytest.mark.parametrize(("environments", "frames"), [(2, 1), (3, 4)])
def test_who_waits_for_the_only_one_with_something_to_do_sends_no_frames(
    environments: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    take = Frames.take

    def count(*args: Any) -> int | None:
        nonlocal taken
        taken += 1
        return take(*args)

    monkeypatch.setattr(Frames, "take", count)
    times = AsksAgainAndAgain.times
    assert take_steps([AsksAgainAndAgain, Peer, Peer], environments)[0] == times
    assert taken <= 2 * times * frames + 20
