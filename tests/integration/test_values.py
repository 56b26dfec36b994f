"""Values keep their types between agents of two slaves, each way."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from creamas_sc import Artifact, MultiEnvironment
from creamas_sc.errors import AgentError, EncodeError
from tests.support.agents import Echo
from tests.support.values import Mood, Place, Point, Route, Sketch, Stranger, shorten

PLAIN: list[Any] = [
    None, True, False, 0, -1, 2**63, 2**64, -(2**200), 1.5, -0.0, math.inf, -math.inf, math.nan,
    "", "text", "\N{SNOWMAN}\N{GRINNING FACE}", b"", b"\0\xff", b"x" * 70_000,
    [], [1, [2, [3]]], (), (1, (2, ())), [(), ((),)], set(), {1, (2, 3)}, frozenset({1, 2}),
    {}, {"a": 1}, {1: "one", (2, 3): "pair", None: 0, frozenset({1}): 2, b"k": 1.5}, 1 + 2j,
    datetime(2020, 2, 29, 1, 2, 3, 456), datetime(2020, 1, 1, tzinfo=UTC),
    datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    date(2020, 1, 1), timedelta(days=-1, microseconds=1), Decimal("1.10"), UUID(int=7), int, Echo,
]  # fmt: skip
ARRAYS: list[Any] = [
    *(np.arange(6).reshape(2, 3).astype(t) for t in ("i1", "u8", "<f4", ">f8", "c16", "?", "U3")),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.array(3.5), np.zeros((0, 3)),
    np.arange(10)[::2], np.array(["2020-01-01"], "M8[D]"), np.zeros(2, [("a", "i4"), ("b", "f8")]),
    np.arange(20_000.0), np.float32(1.5), np.int64(-7), np.bool_(True), np.complex64(1j),
]  # fmt: skip
OBJECTS: list[Any] = [
    Point(1, 2.5), Artifact("me", [1, (2,)], domain=list), Sketch("me", {"a": Point(0, 1)}, "bold"),
    {"nested": [(Point(1, 1), {Artifact("you", 3)}, np.arange(3))]},
    Mood.BAD, Place(1, (Mood.GOOD,)), Route((Place(1), Place(2, (Mood.BAD,))), 0.5), shorten,
    {Mood.GOOD: [Route(()), Place(3)]},
]  # fmt: skip
VALUES = [*PLAIN, *ARRAYS, *OBJECTS]


def same(one: Any, other: Any) -> bool:
    """Whether the values are equal and of the same types, all the way down; nan equals nan."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        fortran = other.flags.fnc  # a slice that is not contiguous arrives in C order
        return alike and one.flags.fnc == fortran and bool(np.array_equal(one, other))
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and (
            one == other or (math.isnan(one) and math.isnan(other))
        )
    if isinstance(one, Sketch) and one.style != other.style:
        return False
    return bool(one == other)


async def test_200_calls_each_way(menv: MultiEnvironment) -> None:
    (one, one_addr), (two, two_addr) = [await menv.spawn(Echo) for _ in range(2)]
    calls = 0
    while calls < 200:
        for value in VALUES:
            for asker, asked in ((one, two_addr), (two, one_addr)):
                answer = await asker.ask(asked, value)
                assert same(answer, value), (answer, value)
            calls += 1


async def test_a_call_within_an_environment_keeps_types_too(menv: MultiEnvironment) -> None:
    (asker, _), (_, asked) = await menv.spawn_n(Echo, 2)
    for value in VALUES:
        assert same(await asker.ask(asked, value), value)


async def test_agents_arrive_as_proxies(menv: MultiEnvironment) -> None:
    (one, _), (two, two_addr) = [await menv.spawn(Echo) for _ in range(2)]
    proxy = (await one.ask(two_addr, [two]))[0]
    assert (proxy.addr, repr(proxy)) == (two_addr, f"EchoProxy({two_addr!r})")
    assert await proxy.evaluate(1) == 1


async def test_what_cannot_travel_is_refused_at_the_caller(menv: MultiEnvironment) -> None:
    echo, addr = await menv.spawn(Echo)
    with pytest.raises(EncodeError, match=r"args\[0\]\[1\]\['x'\]") as caught:
        await echo.evaluate([1, {"x": Stranger()}])
    assert caught.value.type_name == "tests.support.values.Stranger"
    for refused in (bytearray(b"x"), range(3), object, lambda: 1):
        if refused is not object:
            with pytest.raises(EncodeError):
                await echo.evaluate(refused)
    assert await echo.evaluate(1) == 1
    with pytest.raises(AgentError, match=r"Stranger") as reply:
        await echo.give_stranger()
    assert reply.value.address == addr
    assert await echo.evaluate(2) == 2
