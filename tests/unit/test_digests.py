"""Forms of values, in which two runs are compared: no address is left in them."""

from __future__ import annotations

import datetime
import random
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import pytest
import trio

from creamas_sc import Artifact, CreativeAgent, Environment, Proxy, expose
from creamas_sc.core.digests import Forms, digest, digests_of, global_generators, pack, unpack
from creamas_sc.wire.codec import Codec
from tests.support.values import Point

HERE = "tcp://localhost:5555/"
THERE = "tcp://localhost:7777/"


class Colour(Enum):
    RED = 1


class Pair(NamedTuple):
    one: Any
    other: Any


@dataclass
class Kept:
    value: Any


class Memory:
    """A user's class that the codec does not carry."""

    def __init__(self, *items: Any) -> None:
        self.items = items


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Broken:
    def __getstate__(self) -> Any:
        raise ValueError("broken")


def forms(url: str = HERE) -> Forms:
    """Of an environment at ``url`` with the agents 0, 1, (1, 0) and another with 2."""
    other = THERE if url == HERE else HERE
    return Forms(Codec(), {url: [[0, 2], (1, 0)], other: [[2, 1]]})


@pytest.mark.parametrize(
    "make",
    [
        lambda own, other: f"{own}1",
        lambda own, other: [f"{own}2", f"{own}3", f"{other}1", f"{own}0"],
        lambda own, other: {f"{own}1": {f"{other}1": 1}},
        lambda own, other: {f"{own}1", "x", f"{own}2"},
        lambda own, other: Kept((f"{own}1", deque([f"{own}2"]))),
        lambda own, other: Memory(Memory(f"{own}1")),
        lambda own, other: Slotted(f"{own}1"),
        lambda own, other: Pair(f"{own}1", f"{other}1"),
        lambda own, other: Artifact(f"{own}1", {"seen by": f"{other}1"}),
        lambda own, other: Proxy(None, f"{own}2"),  # type: ignore[arg-type]
    ],
)
def test_addresses_are_numbers(make: Any) -> None:
    one, other = forms(HERE).of(make(HERE, THERE)), forms(THERE).of(make(THERE, HERE))
    assert one == other
    assert b"tcp:" not in pack(one)
    assert one != forms(HERE).of(make(THERE, HERE))


def test_texts_that_only_hold_an_address_keep_it() -> None:
    for text in (f"by {HERE}1", f"{HERE}9", f"{HERE}x", HERE, "tcp://elsewhere:1/1"):
        assert forms().of(text) == text


@pytest.mark.parametrize(
    "values",
    [
        [None, False, 0, 0.0, "", b"", [], (), {}, set(), frozenset(), deque()],
        [1, True, 1.0, "1", np.int64(1), np.float64(1), 1 + 0j],
        [2**63, 2**64, -(2**70), float("nan"), float("inf")],
        [[1, 2], [2, 1], (1, 2), {1, 2}, {1: 2}, Pair(1, 2), OrderedDict({1: 2}), Counter([1])],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [Point(1, 2), Point(2, 1), Kept(1), Kept(2), Memory(1), Memory(2), Slotted(1), Slotted(2)],
        [np.arange(3), np.arange(3.0), np.arange(4), np.zeros((3, 1)), np.zeros(5000)],
        [Colour.RED, Colour, len, datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1)],
        [random.Random(1), random.Random(2), np.random.default_rng(1), np.random.default_rng(2)],
        [Artifact("a", 1), Artifact("b", 1), Artifact("a", 2), "\ud800"],
    ],
)
def test_values_that_differ_have_other_digests(values: list[Any]) -> None:
    digests = [digest(forms().of(value)) for value in values]
    assert len({*digests}) == len(values)
    assert digests == [digest(unpack(pack(forms().of(value)))) for value in values]


def test_the_order_of_sets_does_not_count() -> None:
    words = [f"word {n}" for n in range(100)]
    assert forms().of({*words}) == forms().of({*words[50:], *words[:50]})
    assert forms().of(frozenset({(1, 2), "x"})) == forms().of(frozenset({"x", (1, 2)}))


def test_what_cannot_be_compared_is_named() -> None:
    own: list[Any] = []
    own.append(own)
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    made = forms()
    form = made.of([object(), trio.Event(), own, deep, Broken(), 1])
    assert form[-1] == 1
    assert list(made.unseen) == [
        "object", "Event", "it holds itself", "it is nested too deeply", "Broken, ValueError",
    ]  # fmt: skip


class Member(CreativeAgent):
    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.seen = [self.addr]
        self.waiting = trio.Event()

    @expose
    async def act(self) -> None:
        self.add_connection(f"{self.env.base_url}2")


class Secretive(Member):
    said: Any = {"all": 1}  # noqa: RUF012

    def __getstate__(self) -> Any:
        return self.said


class Refusing(Member):
    def __getstate__(self) -> Any:
        raise ValueError


def test_the_state_of_an_agent() -> None:
    env = Environment(("localhost", 5555))
    agent = Member(env)
    made = Forms(Codec(), {env.base_url: [[4, 2]]})
    state = made.state(agent)
    assert state == {
        "seen": ["items", "list", ["manager"]],  # the first one is where a manager would be
        "waiting": ["unseen", "Event"],
        "rng": None,
        "numpy_rng": None,
    }
    assert list(made.unseen) == ["Member.waiting: Event"]
    agent.add_connection(f"{env.base_url}2", liked=True)
    agent.rng.random()
    changed = made.state(agent)
    assert changed["connections"] == [
        "dict", "dict", [["agent", 5], ["dict", "dict", ["liked", True]]],
    ]  # fmt: skip
    assert changed["rng"][:2] == ["generator", "Random"]
    agent.rng.random()
    assert made.state(agent)["rng"] != changed["rng"]
    generators = {"rng": None, "numpy_rng": None}
    secretive = Secretive(env)
    assert made.state(secretive) == {"all": 1, **generators}
    for said in ({1: 2, "a": 3}, 5, [6], (7,)):
        secretive.said = said
        whole = said[0] if isinstance(said, tuple) else said
        assert made.state(secretive) == {"__getstate__()": made.of(whole), **generators}
    assert made.state(Refusing(env)) == {"__getstate__()": None, **generators}
    assert list(made.unseen)[1:] == ["Refusing: __getstate__, ValueError"]


def test_digests_of_an_environment() -> None:
    env = Environment(("localhost", 5555))
    first, second = Member(env), Member(env)
    second.name = "bob"
    answer = digests_of(env, {env.base_url: [[0, 2]]})
    assert answer["numbers"] == [0, 1]
    assert answer["names"] == {1: "bob"}
    assert answer["hash"] == hash("creamas")
    assert len(answer["digests"]) == 32
    first.seen.append("x")
    again = digests_of(env, {env.base_url: [[0, 2]]})["digests"]
    assert again[:16] != answer["digests"][:16]
    assert again[16:] == answer["digests"][16:]


def test_generators_of_the_process() -> None:
    before = global_generators()
    assert global_generators() == before
    random.random()
    drawn = global_generators()
    assert drawn["random"] != before["random"]
    assert drawn["numpy.random"] == before["numpy.random"]
    np.random.random()
    assert global_generators()["numpy.random"] != before["numpy.random"]


def test_errors_name_agents_by_their_numbers() -> None:
    text = f"{HERE}3 failed: {THERE}1 is gone, not {HERE}7"
    assert forms().without_addresses(text) == (
        f"<agent 1 0> failed: <agent 2> is gone, not {HERE}7"
    )
