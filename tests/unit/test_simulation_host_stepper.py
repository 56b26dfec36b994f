"""A simulation's own steps: when they begin, stop and go on, and what is reported of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc.errors import (
    AgentError,
    BadValue,
    CreamasError,
    DeadlineExceeded,
    RecordError,
    SlaveLost,
    StepOverran,
    agent_errors,
)
from creamas_sc.simulation_host.stepper import State, Stepper

ADDRESS = "tcp://localhost:1/"


class Steps:
    """Steps of one second, of three acts; each takes the next of ``plan``, if there is one."""

    def __init__(self, *plan: BaseException | None, seconds: float = 1.0) -> None:
        self.age = 0
        self.lock = trio.Lock()
        self.taken: list[Any] = []
        self._plan = list(plan)
        self._seconds = seconds

    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        async with self.lock:
            if self._seconds:
                await trio.sleep(self._seconds)
            self.taken.append((args, kwargs))
            error = self._plan.pop(0) if self._plan else None
            if error is not None:
                raise error
            return [1, 2, 3]

    async def trigger_all_within(self, seconds: float, *args: Any, **kwargs: Any) -> list[Any]:
        return await self.trigger_all(seconds, *args, **kwargs)


@asynccontextmanager
async def stepper(steps: Any) -> AsyncIterator[tuple[Stepper, list[dict[str, Any]]]]:
    """A stepper, and what it has reported."""
    reports: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        made = Stepper(steps, ADDRESS, nursery, lambda: reports.append(made.progress()))
        yield made, reports
        nursery.cancel_scope.cancel()


async def test_it_takes_as_many_steps_as_asked(autojump_clock: trio.testing.MockClock) -> None:
    steps = Steps()
    async with stepper(steps) as (own, _):
        assert own.progress()["state"] == "idle"
        own.start(4, ("a",), {"b": 1})
        assert own.progress() == {
            "state": "stepping",
            "step": 0,
            "of": 4,
            "pausing": False,
            "overran": 0,
            "step_seconds": None,
            "steps_per_second": None,
            "acts_per_second": None,
            "seconds_left": None,
            "error": "",
        }
        await own.wait(None)
        assert trio.current_time() == 4
    assert steps.taken == [(("a",), {"b": 1})] * 4
    assert steps.age == 4
    assert own.progress()["state"] == "idle"
    assert own.progress()["step"] == own.progress()["of"] == 4


async def test_ages_go_on_from_where_they_are(autojump_clock: trio.testing.MockClock) -> None:
    steps = Steps()
    steps.age = 10
    async with stepper(steps) as (own, _):
        for _ in range(2):
            own.start(3, (), {})
            await own.wait(None)
    assert steps.age == 16


async def test_how_fast_and_how_long_still(autojump_clock: trio.testing.MockClock) -> None:
    async with stepper(Steps()) as (own, reports):
        own.start(100, (), {})
        await trio.sleep(20.5)
        progress = own.progress()
        assert (progress["step"], progress["acts_per_second"]) == (20, 3.0)
        assert progress["steps_per_second"] == 1.0
        assert progress["seconds_left"] == 80.0
        assert [report["step"] for report in reports] == list(range(21))


async def test_reports_are_at_most_ten_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with stepper(Steps(seconds=0.001)) as (own, reports):
        own.start(None, (), {})
        await trio.sleep(2)
        assert own.progress()["step"] > 1500
        assert 15 <= len(reports) <= 22
        await own.pause()
        assert reports[-1]["state"] == "paused"


async def test_a_pause_finishes_the_step_under_way(autojump_clock: trio.testing.MockClock) -> None:
    steps = Steps()
    async with stepper(steps) as (own, _):
        own.start(None, (), {})
        await trio.sleep(2.5)
        await own.pause()
        assert trio.current_time() == 3
        assert own.state is State.PAUSED
        await own.pause()  # again is nothing new
        await trio.sleep(10)
        assert len(steps.taken) == 3
        own.resume()
        await trio.sleep(1.5)
        assert own.progress()["state"] == "stepping"
        assert own.progress()["step"] == 4


async def test_a_pause_stands_although_who_asked_has_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    steps = Steps()
    async with stepper(steps) as (own, _):
        own.start(None, (), {})
        await trio.sleep(0.5)
        with trio.move_on_after(0.1):
            await own.pause()
        await own.wait(None)
        assert own.state is State.PAUSED
        assert len(steps.taken) == 1


@pytest.mark.parametrize("timeout", [0, 0.1])
async def test_a_pause_stands_although_its_time_was_up(
    timeout: float, autojump_clock: trio.testing.MockClock
) -> None:
    steps = Steps()
    async with stepper(steps) as (own, reports):
        own.start(None, (), {})
        assert own.progress()["pausing"] is False
        await trio.sleep(0.5)
        with pytest.raises(DeadlineExceeded, match=f"not done after {timeout} s: .* pauses when"):
            await own.pause(timeout)
        assert trio.current_time() == 0.5 + timeout
        assert own.progress()["pausing"] is reports[-1]["pausing"] is True
        await own.wait(None)
        assert own.state is State.PAUSED
        assert own.progress()["pausing"] is reports[-1]["pausing"] is False
        assert len(steps.taken) == 1
        await own.pause(0)
        with pytest.raises(BadValue, match="timeout"):
            await own.pause(-1)


async def test_a_resume_is_reported_where_a_pause_was_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stepper(Steps()) as (own, reports):
        own.start(5, (), {})
        await trio.sleep(0.5)
        with pytest.raises(DeadlineExceeded):
            await own.pause(0)
        own.resume()
        assert reports[-1]["pausing"] is False
        await own.wait(None)
        assert own.progress()["step"] == 5


async def test_steps_in_a_limited_time_go_on_after_one_that_was_late(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    late = StepOverran("1 of the agents had not acted", addresses=["a"], results=[1, 2])
    no_turn = DeadlineExceeded("it was not this step's turn", may_have_run=False)
    steps = Steps(None, late, no_turn)
    async with stepper(steps) as (own, _):
        own.start(4, ("x",), {"y": 1}, within=(2.5, "kill"))
        await own.wait(None)
        progress = own.progress()
        assert (progress["state"], progress["step"], progress["overran"]) == ("idle", 4, 2)
        assert steps.taken == [((2.5, "x"), {"y": 1, "on_overrun": "kill"})] * 4
        texts = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        assert texts == [f"step 2 was cut short: {late}", f"step 3 was cut short: {no_turn}"]
        own.start(1, (), {})
        assert own.progress()["overran"] == 0
        await own.wait(None)
        assert steps.taken[-1] == ((), {})


async def test_agents_that_fail_in_a_step_that_was_late_stop_the_steps(
    autojump_clock: trio.testing.MockClock,
) -> None:
    failure = AgentError(address="a", type_name="ValueError", message="no colour")
    late = StepOverran("1 of the agents had not acted", failures={"a": failure}, results=[1, 2])
    async with stepper(Steps(late)) as (own, _):
        own.start(4, (), {}, within=(2.5, "cancel"))
        await own.wait(None)
        progress = own.progress()
        assert (progress["state"], progress["step"], progress["overran"]) == ("failed", 1, 1)
        assert "ValueError in a: no colour" in progress["error"]


@pytest.mark.parametrize("error", [StepOverran("late"), DeadlineExceeded("late")])
async def test_a_time_limit_of_the_users_own_stops_the_steps(
    error: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    async with stepper(Steps(error)) as (own, _):
        own.start(4, (), {})
        await own.wait(None)
        assert (own.state, own.progress()["step"]) == (State.FAILED, 0)


async def test_a_resume_before_the_pause_has_come(autojump_clock: trio.testing.MockClock) -> None:
    async with stepper(Steps()) as (own, reports):
        own.start(5, (), {})
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(own.pause)
            await trio.sleep(0.1)
            own.resume()
        assert trio.current_time() == pytest.approx(0.6)
        await own.wait(None)
        assert "paused" not in {report["state"] for report in reports}


async def test_agents_that_fail_stop_the_steps(autojump_clock: trio.testing.MockClock) -> None:
    failures = {
        f"{ADDRESS}{i}": AgentError(address=f"{ADDRESS}{i}", type_name="ValueError", message="no")
        for i in range(5)
    }
    steps = Steps(None, agent_errors("failed to act", failures, [1, 2]))
    async with stepper(steps) as (own, _):
        own.start(4, (), {})
        await own.wait(None)
        progress = own.progress()
        assert (progress["state"], progress["step"]) == ("failed", 2)  # all have acted in it
        assert "5 of the agents failed to act" in progress["error"]
        assert f"ValueError in {ADDRESS}0: no" in progress["error"]
        own.resume()
        assert own.progress()["error"] == ""
        await own.wait(None)
        assert own.progress()["step"] == 4
        assert own.state is State.IDLE


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("odd"), f"KeyError in {ADDRESS}: 'odd'"),
        (SystemExit(3), f"SystemExit in {ADDRESS}: 3"),
        (KeyboardInterrupt(), f"KeyboardInterrupt in {ADDRESS}: "),
        (ExceptionGroup("some", [ValueError("a")]), f"ValueError in {ADDRESS}: a"),
        (ExceptionGroup("some", [ValueError(), KeyError()]), f"ExceptionGroup in {ADDRESS}: some"),
    ],
)
async def test_any_error_in_a_step_stops_the_steps_and_nothing_else(
    error: BaseException, text: str, autojump_clock: trio.testing.MockClock
) -> None:
    steps = Steps(error)
    async with stepper(steps) as (own, _):
        own.start(2, (), {})
        await own.wait(None)
        assert own.progress()["state"] == "failed"
        assert text in own.progress()["error"]
        assert own.progress()["step"] == 0  # which agents have acted in it is not known
        own.resume()
        await own.wait(None)
        assert own.state is State.IDLE
        assert steps.age == 3


async def test_the_log_has_the_agents_traceback(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    story = "Traceback (most recent call last):\n  painters.py, line 7"
    failure = AgentError(address="a", type_name="ValueError", message="x", traceback_text=story)
    async with stepper(Steps(agent_errors("failed to act", {"a": failure}, []))) as (own, _):
        own.start(1, (), {})
        await own.wait(None)
    (error,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert story in error.getMessage()


@pytest.mark.parametrize("may_have_run", [True, False])
async def test_a_step_that_is_not_in_the_record_ends_the_stepping(
    may_have_run: bool, autojump_clock: trio.testing.MockClock
) -> None:
    error = RecordError("the disk is full", may_have_run=may_have_run, results=[1, 2, 3])
    steps = Steps(None, error)
    async with stepper(steps) as (own, _):
        own.start(3, (), {})
        await own.wait(None)
        assert own.progress()["state"] == "failed"
        assert own.progress()["error"] == "the disk is full"
        # One in which no agent has acted is taken again.
        assert own.progress()["step"] == (2 if may_have_run else 1)
        own.resume()
        await own.wait(None)
        assert own.progress()["step"] == steps.age == 3
        assert own.progress()["state"] == "idle"


async def test_the_others_go_on_without_a_lost_slave(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stepper(Steps(SlaveLost("the slave x was killed by SIGKILL"))) as (own, _):
        own.start(2, (), {})
        await own.wait(None)
        assert (own.state, own.progress()["step"]) == (State.IDLE, 2)


async def test_a_class_whose_age_is_odd(autojump_clock: trio.testing.MockClock) -> None:
    steps = Steps()
    steps.age = "old"  # type: ignore[assignment]
    async with stepper(steps) as (own, _):
        own.start(2, (), {})
        await own.wait(None)
        assert own.state is State.FAILED


async def test_what_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with stepper(Steps()) as (own, _):
        with pytest.raises(CreamasError, match="start some first"):
            own.resume()
        for n in (0, -1, 1.5, True, "3", 2**53 + 1, 10**400, 10**5000):
            with pytest.raises(BadValue, match="n must be an int above 0"):
                own.start(n, (), {})  # type: ignore[arg-type]
        assert own.state is State.IDLE
        own.start(2, (), {})
        with pytest.raises(CreamasError, match="already"):
            own.start(2, (), {})
        own.resume()  # it does go on
        with pytest.raises(BadValue, match="timeout"):
            await own.wait(-1)


async def test_a_wait_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    async with stepper(Steps()) as (own, _):
        own.start(None, (), {})
        with pytest.raises(DeadlineExceeded, match=r"still stepping after 2\.5 s"):
            await own.wait(2.5)
        assert trio.current_time() == 2.5


async def test_others_get_their_turn_between_steps(autojump_clock: trio.testing.MockClock) -> None:
    steps = Steps()
    async with stepper(steps) as (own, _):
        own.start(None, (), {})
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(steps.trigger_all, name)
        assert trio.current_time() == 4
        assert len(steps.taken) == 4
        await trio.sleep(1.5)
        assert steps.taken[4] == ((), {})


async def test_a_pause_before_the_first_step(autojump_clock: trio.testing.MockClock) -> None:
    async with stepper(Steps()) as (own, _):
        own.start(2, (), {})
        await own.pause()
        assert own.progress()["step"] == 0
        own.resume()
        await own.wait(None)
        assert own.progress()["step"] == 2


async def test_steps_that_never_wait_leave_others_their_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Eager:
        age = 0

        async def trigger_all(self) -> list[Any]:
            return []

        trigger_all_within: Any = None

    async with stepper(Eager()) as (own, _):
        own.start(None, (), {})
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        await own.pause()
        assert own.progress()["step"] > 5


async def test_the_end_cancels_the_step_under_way(autojump_clock: trio.testing.MockClock) -> None:
    steps = Steps(seconds=3600)
    async with stepper(steps) as (own, _):
        own.start(None, (), {})
        await trio.sleep(1)
        await own.stop(1)
        assert trio.current_time() == 1
        assert own.progress()["state"] == "closed"
        assert own.progress()["step_seconds"] is None
        assert steps.taken == []


async def test_the_end_does_not_wait_for_what_will_not_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Stubborn:
        age = 0

        async def trigger_all(self) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    async with stepper(Stubborn()) as (own, _):
        own.start(None, (), {})
        await trio.sleep(1)
        await own.stop(1)
        assert trio.current_time() == 2


async def test_how_long_the_step_under_way_has_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with stepper(Steps(seconds=100)) as (own, _):
        own.start(2, (), {})
        await trio.sleep(30)
        assert own.progress()["step_seconds"] == 30
        await trio.sleep(75)
        assert own.progress()["step_seconds"] == 5
        await own.pause()
        assert own.progress()["step_seconds"] is None


async def test_a_plain_trigger_all_of_the_users(autojump_clock: trio.testing.MockClock) -> None:
    class Plain:
        age = 0

        def trigger_all(self, *args: Any) -> list[Any]:
            return [1, 2, *args]

    async with stepper(Plain()) as (own, _):
        own.start(3, (3,), {})
        await own.wait(None)
        progress = own.progress()
        assert (progress["state"], progress["step"], progress["error"]) == ("idle", 3, "")
