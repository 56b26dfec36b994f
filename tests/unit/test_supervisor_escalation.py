"""The ladder of a stop, without a process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from supervisor import timeouts
from supervisor.actors.escalation import Step, escalate, rungs

STEPS = [Step.REQUEST, Step.CANCEL, Step.TERM, Step.KILL]


class Stubborn:
    """Ends at a given step only, ``after`` seconds into it; notes when each step came."""

    def __init__(self, heeds: Step | None, after: float = 0.0, *, hangs: bool = False) -> None:
        self.ended = trio.Event()
        self.taken: list[tuple[Step, float]] = []
        self._heeds, self._after, self._hangs = heeds, after, hangs

    def acts(self) -> dict[Step, Callable[[], Awaitable[object]]]:
        return {step: self._act(step) for step in STEPS}

    def _act(self, step: Step) -> Callable[[], Awaitable[object]]:
        async def act() -> None:
            self.taken.append((step, trio.current_time()))
            if step is self._heeds:
                await trio.sleep(self._after)
                self.ended.set()
            elif self._hangs:
                await trio.sleep_forever()

        return act


@pytest.mark.parametrize("heeds", STEPS)
@pytest.mark.parametrize("hangs", [False, True])
async def test_each_step_has_its_seconds_and_no_more(
    heeds: Step, hangs: bool, autojump_clock: MockClock
) -> None:
    actor = Stubborn(heeds, hangs=hangs)
    began = trio.current_time()
    assert await escalate(actor.ended, actor.acts(), 1.0) is heeds
    starts = [0.0, 1.0, 1.0 + timeouts.CANCEL_SECONDS, timeouts.LADDER_SECONDS]
    depth = STEPS.index(heeds) + 1
    assert [step for step, _ in actor.taken] == STEPS[:depth]
    assert [at - began for _, at in actor.taken] == pytest.approx(starts[:depth])


async def test_a_callers_grace_replaces_the_default(
    autojump_clock: MockClock,
) -> None:
    actor = Stubborn(Step.REQUEST, after=29.0)
    assert await escalate(actor.ended, actor.acts(), 30.0) is Step.REQUEST


async def test_no_grace_leaves_the_request_out() -> None:
    assert [rung.step for rung in rungs(0.0)] == STEPS[1:]
    actor = Stubborn(Step.CANCEL)
    assert await escalate(actor.ended, actor.acts(), 0.0) is Step.CANCEL


async def test_one_that_is_gone_is_left_in_peace() -> None:
    actor = Stubborn(None)
    actor.ended.set()
    assert await escalate(actor.ended, actor.acts(), 1.0) is Step.GONE
    assert actor.taken == []


async def test_even_the_unkillable_is_waited_for_within_a_bound(
    autojump_clock: MockClock,
) -> None:
    actor = Stubborn(None, hangs=True)
    began = trio.current_time()
    assert await escalate(actor.ended, actor.acts(), 1.0) is None
    assert trio.current_time() - began == pytest.approx(
        timeouts.LADDER_SECONDS + timeouts.KILL_SECONDS
    )


def test_the_patiences_outlast_each_other_and_stay_under_two_seconds() -> None:
    assert timeouts.LADDER_SECONDS < timeouts.ZYGOTE_PATIENCE_SECONDS
    assert timeouts.ZYGOTE_PATIENCE_SECONDS < timeouts.KEEPER_PATIENCE_SECONDS < 2.0
