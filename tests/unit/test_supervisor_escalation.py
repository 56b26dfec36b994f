"""The stages of a stop, without a process."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from supervisor import timeouts
from supervisor.actors.escalation import StopStage, escalate

STAGES = [StopStage.REQUEST, StopStage.CANCEL, StopStage.TERM, StopStage.KILL]


class Stubborn:
    """Ends at a given stage only, ``after`` seconds into it; notes when each stage came."""

    def __init__(self, heeds: StopStage | None, after: float = 0.0, *, hangs: bool = False) -> None:
        self.ended = trio.Event()
        self.taken: list[tuple[StopStage, float]] = []
        self._heeds, self._after, self._hangs = heeds, after, hangs

    async def act(self, stage: StopStage) -> None:
        self.taken.append((stage, trio.current_time()))
        if stage is self._heeds:
            await trio.sleep(self._after)
            self.ended.set()
        elif self._hangs:
            await trio.sleep_forever()


@pytest.mark.parametrize("heeds", STAGES)
@pytest.mark.parametrize("hangs", [False, True])
async def test_each_stage_has_its_seconds_and_no_more(
    heeds: StopStage, hangs: bool, autojump_clock: MockClock
) -> None:
    actor = Stubborn(heeds, hangs=hangs)
    began = trio.current_time()
    await escalate(actor.ended, actor.act, 1.0)
    assert actor.ended.is_set()
    starts = [0.0, 1.0, 1.0 + timeouts.CANCEL_SECONDS, timeouts.STOP_SECONDS]
    depth = STAGES.index(heeds) + 1
    assert [stage for stage, _ in actor.taken] == STAGES[:depth]
    assert [at - began for _, at in actor.taken] == pytest.approx(starts[:depth])


async def test_a_callers_grace_replaces_the_default(
    autojump_clock: MockClock,
) -> None:
    actor = Stubborn(StopStage.REQUEST, after=29.0)
    await escalate(actor.ended, actor.act, 30.0)
    assert [stage for stage, _ in actor.taken] == [StopStage.REQUEST]
    assert actor.ended.is_set()


async def test_no_grace_leaves_the_request_out() -> None:
    actor = Stubborn(StopStage.CANCEL)
    await escalate(actor.ended, actor.act)
    assert [stage for stage, _ in actor.taken] == [StopStage.CANCEL]


async def test_a_stage_to_begin_with_leaves_out_those_before(autojump_clock: MockClock) -> None:
    actor = Stubborn(StopStage.KILL)
    await escalate(actor.ended, actor.act, 1.0, first=StopStage.TERM)
    assert [stage for stage, _ in actor.taken] == [StopStage.TERM, StopStage.KILL]


async def test_nothing_is_done_to_an_actor_that_is_gone() -> None:
    actor = Stubborn(None)
    actor.ended.set()
    await escalate(actor.ended, actor.act, 1.0)
    assert actor.taken == []


async def test_even_the_unkillable_is_waited_for_within_a_bound(
    autojump_clock: MockClock,
) -> None:
    actor = Stubborn(None, hangs=True)
    began = trio.current_time()
    await escalate(actor.ended, actor.act, 1.0)
    assert not actor.ended.is_set()
    assert trio.current_time() - began == pytest.approx(
        timeouts.STOP_SECONDS + timeouts.KILL_SECONDS
    )


def test_the_waits_outlast_each_other_and_stay_under_two_seconds() -> None:
    assert timeouts.STOP_SECONDS < timeouts.ZYGOTE_WAIT_SECONDS
    assert timeouts.ZYGOTE_WAIT_SECONDS < timeouts.KEEPER_WAIT_SECONDS < 2.0
