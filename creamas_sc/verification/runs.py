"""The runs of a verification, side by side."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from inspect import isawaitable
from itertools import repeat
from typing import Any

from creamas_sc.core.digests import Forms, digest, global_generators, unpack
from creamas_sc.core.randomness import process_seeds
from creamas_sc.errors import AgentErrors, BadValue
from creamas_sc.foreign import shown
from creamas_sc.mp import MultiEnvironment
from creamas_sc.rpc.rounds.order import Order, runs_of
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.validation import check_count
from creamas_sc.util import run
from creamas_sc.verification.causes import Evidence, Window, causes_of
from creamas_sc.verification.differences import Place, first_difference, text_of
from creamas_sc.verification.outcome import Change, Difference, Verification
from creamas_sc.verification.snapshots import Snapshot, Unequal, unequal

Build = Callable[[int, int], Any]
Step = Callable[[MultiEnvironment], Any]


def verify(
    build: Build,
    *,
    steps: int = 10,
    seed: int = 1,
    slaves: Sequence[int] = (1, 2, 4),
    step: Step | None = None,
) -> Verification:
    """Run a simulation several times with one seed, and find the first difference.

    There are two runs with the first number of ``slaves``, and one with each other. They go on side
    by side: after each step, the agents' states, what their acts have returned and the artifacts
    that they have published are compared, of each agent with the agent of the same number. What is
    compared is made into digests in the slaves; more than these travels only once two runs differ.

    ::

        from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run, verify
        from creamas_sc.mp import EnvManager


        class Painter(CreativeAgent):
            colour = 0.5

            @expose
            async def act(self):
                self.colour = self.rng.random()
                return self.colour


        def build(slaves, seed):
            menv = MultiEnvironment(("localhost", 0), Environment, seed=seed)
            run(menv.spawn_slaves([("localhost", 0)] * slaves, Environment, EnvManager))
            for _ in range(6):
                run(menv.spawn(Painter))
            return menv


        print(verify(build, steps=3, slaves=(1, 2)))  # same: 3 steps, seed 1, runs with 1, 1, 2 ...

    Where two runs differ, the outcome says in which step, which agent, in what (its result, its
    artifacts, an attribute and what is there), and what makes them differ if there is evidence for
    it: calls that are free, use of the module ``random``, a value that is the time or
    holds an address, the same items in another order, a step that is not repeatable.

    **What is compared of an agent**: what its ``__getstate__`` returns, by default its attributes;
    and its ``rng`` and ``numpy_rng``. An address of an agent, as the whole of a value, counts as
    the agent's number. Dicts and lists are equal in the same order alone, sets in any. What neither
    the codec nor a class in Python explains, such as an event of trio's, is left out, and named.

    Args:
        build: Called with a number of slaves and the seed; returns a `MultiEnvironment` with its
            agents, on free ports (0). It may be a coroutine function.
        steps: How many to take.
        seed: Of all runs.
        slaves: How many each run has.
        step: Takes one step, called with what ``build`` has returned; by default its
            ``trigger_all``. It may be a coroutine function.

    Raises:
        BadValue: An argument is not valid, or ``build`` returns something else.
        Exception: What ``build`` and a step raise, except `AgentErrors` of a step: agents that fail
            in the same way in each run are equal.
    """
    end_script_load()
    counts = [*slaves]
    if not counts or not all(type(count) is int and count > 0 for count in counts):
        raise BadValue(f"slaves must be ints above 0, not {shown(slaves)}")
    check_count("steps", steps, 0)
    window = Window.since()
    with ExitStack() as stack:
        runs = [_Run(build, n, seed, stack, step) for n in (counts[0], *counts)]
        found, done = _compare(runs, window), 0
        while found is None and done < steps:
            done += 1
            for each in runs:
                each.step()
            found = _compare(runs, window, done)
        unseen = dict.fromkeys(text for each in runs for text in each.now.unseen)
        calls = "rounds" if all(each.menv.calls == "rounds" for each in runs) else "free"
    every = tuple(each.slaves for each in runs)
    return Verification(found is None, seed, done, every, calls, found, tuple(unseen))


class _Run:
    """One run, which is closed with ``stack``.

    Attributes:
        now: What it is after its last step; before: after the one before it.
    """

    def __init__(
        self, build: Build, slaves: int, seed: int, stack: ExitStack, step: Step | None
    ) -> None:
        generators = global_generators()
        menv = _result(build(slaves, seed))
        if not isinstance(menv, MultiEnvironment):
            raise BadValue(f"build must return a MultiEnvironment, not {shown(menv)}")
        if menv.seed != seed:
            menv.close()
            raise BadValue(f"build must pass its seed on, {seed}: the simulation has {menv.seed}")
        self.menv: MultiEnvironment = stack.enter_context(menv)
        self.slaves = slaves
        self.why: tuple[str, ...] = ()
        self._step = step or (lambda menv: menv.trigger_all())
        self._numbers: list[Order] = []
        self._names: dict[str, Order] = {}
        self._addresses: dict[str, Order] = {}
        self.forms = Forms(menv.env.network.codec, {})
        self.before = self.now = Snapshot()
        self._take(Snapshot())
        slaves_own = map(_seeded, repeat(seed), range(slaves))
        self.before.generators = [*slaves_own, generators]

    def step(self) -> None:
        """Take a step."""
        artifacts, acting, addresses = len(self.menv.artifacts), self._numbers, self._addresses
        outcome: Any
        try:
            outcome = _result(self._step(self.menv))
        except AgentErrors as errors:
            outcome = errors
        report = self.menv.last_step
        self.why = () if report is None else report.why
        snapshot = Snapshot()
        self._take(snapshot)
        snapshot.take_results(self.forms, acting, outcome, addresses)
        snapshot.take_artifacts(self.forms, self.menv.artifacts[artifacts:], self._names)

    def _take(self, snapshot: Snapshot) -> None:
        answers = run(self._digests())
        names: dict[Order, str] = {}
        for answer in answers:
            snapshot.add_digests(answer)
            names |= answer["names"]
        snapshot.generators.append(global_generators())
        self._names = {name: number for number, name in names.items()}
        self.before, self.now = self.now, snapshot

    async def _digests(self) -> list[Any]:
        """What the slaves' managers say of their agents."""
        network = self.menv.env.network
        addrs: list[str] = await self.menv.get_agents(as_coro=True)
        numbers = network.steps.numbers
        places = {url: runs_of(orders) for url, orders in numbers.items()}
        self._places = {network.base_url: [], **places}
        self.forms = Forms(network.codec, self._places)
        self._addresses = {
            f"{url}{at}": order
            for url, orders in numbers.items()
            for at, order in enumerate(orders, 1)
        }
        self._numbers = [self._addresses[addr] for addr in addrs]
        return await at_once(
            lambda addr: network.call_agent(addr, "_digests", (self._places,), {}), self.menv.addrs
        )

    def state(self, number: Order) -> dict[str, Any]:
        """The forms of an agent's attributes."""

        async def ask(addr: str) -> Any:
            network = self.menv.env.network
            return await network.call_agent(addr, "_digests", (self._places, number), {})

        async def ask_all() -> list[Any]:
            return await at_once(ask, self.menv.addrs)

        return {k: unpack(v) for answer in run(ask_all()) for k, v in answer.items()}

    def used_generators(self) -> Mapping[str, str]:
        """The generators of whole processes that were used in the last step, and where."""
        found: dict[str, str] = {}
        pairs = list(zip(self.before.generators, self.now.generators, strict=False))
        for at, (before, after) in enumerate(pairs):
            where = (
                f"in slave {at + 1} of {self.slaves}" if at < len(pairs) - 1 else "in this script"
            )
            for name in before.keys() & after.keys():
                if before[name] != after[name]:
                    found.setdefault(name, where)
        return found


def _seeded(seed: int, slave: int) -> dict[str, bytes]:
    """The state of a slave's own generator before anything has used it."""
    return {"random": digest(random.Random(process_seeds(seed, slave)[0]).getstate())}


def _compare(runs: Sequence[_Run], window: Window, step: int = 0) -> Difference | None:
    """The first difference between the first run and another one."""
    first = runs[0]
    for other in runs[1:]:
        found = unequal(first.now, other.now)
        if found:
            return _explain(first, other, found, window, step)
    return None


def _explain(
    first: _Run, other: _Run, found: Sequence[Unequal], window: Window, step: int
) -> Difference:
    places: list[tuple[str, Place]] = []
    for what in found:
        if what.forms is not None:
            places.append((what.what, first_difference(*what.forms)))
            continue
        assert what.agent is not None
        states = first.state(what.agent), other.state(what.agent)  # type: ignore[arg-type]
        for name in sorted(states[0].keys() | states[1].keys()):
            forms = states[0].get(name, ["missing"]), states[1].get(name, ["missing"])
            if forms[0] != forms[1]:
                places.append(("state", first_difference(*forms, path=name)))
    evidence = Evidence(
        Window.since(window),
        (first.now.hashes, other.now.hashes),
        {**other.used_generators(), **first.used_generators()},
        [*first.why, *other.why],
        step > 0 and "free" in (first.menv.calls, other.menv.calls),
    )
    changes = [
        Change(what, place.path, (text_of(place.forms[0]), text_of(place.forms[1])))
        for what, place in places
    ]
    causes = causes_of([place for _, place in places], evidence)
    slaves = first.slaves, other.slaves
    return Difference(step, found[0].agent, slaves, tuple(changes), tuple(causes))


def _result(value: Any) -> Any:
    return run(value) if isawaitable(value) else value
