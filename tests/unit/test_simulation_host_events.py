"""The ring of events: who comes in time gets each, who comes late sees what is missing."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc.errors import BadValue
from creamas_sc.simulation_host.hosted_simulation import KEPT_EVENTS, Events


def posted(n: int) -> Events:
    events = Events()
    for i in range(n):
        events.post("steps", {"step": i})
    return events


async def test_from_now_on() -> None:
    assert await posted(0).after(None, None) == (0, [])
    assert await posted(3).after(None, 0) == (3, [])


async def test_those_after_a_number_in_order() -> None:
    events = posted(3)
    assert await events.after(1, None) == (
        3,
        [(2, "steps", {"step": 1}), (3, "steps", {"step": 2})],
    )
    assert len((await events.after(0, None))[1]) == 3


async def test_the_next_one_wakes_all_who_wait() -> None:
    events, heard = posted(2), list[Any]()

    async def hear() -> None:
        heard.append(await events.after(2, None))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hear)
        await trio.testing.wait_all_tasks_blocked()
        events.post("closing", {})
    assert heard == [(3, [(3, "closing", {})])] * 3


async def test_a_timeout_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    assert await posted(2).after(2, 1.5) == (2, [])
    assert trio.current_time() == 1.5
    assert await posted(2).after(2, 0) == (2, [])


async def test_who_comes_late_finds_the_last_thousand() -> None:
    last, kept = await posted(KEPT_EVENTS + 500).after(100, None)
    assert last == KEPT_EVENTS + 500
    assert [number for number, _, _ in kept] == list(range(501, last + 1))


@pytest.mark.parametrize("since", [-1, 4, "2", 1.0, True])
async def test_what_is_no_number_of_an_event(since: Any) -> None:
    with pytest.raises(BadValue, match="from 0 to 3"):
        await posted(3).after(since, None)


@pytest.mark.parametrize("timeout", [-1, "2", float("nan")])
async def test_what_is_no_timeout(timeout: Any) -> None:
    with pytest.raises(BadValue, match="timeout must be a number of seconds"):
        await posted(3).after(3, timeout)
