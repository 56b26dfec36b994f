"""What becomes of an error, by whose code it is."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from creamas_sc.core.artifact import Artifact
from creamas_sc.errors import (
    AgentError,
    BadArguments,
    BadValue,
    NoSlaves,
    NotExposed,
    agent_errors,
)
from creamas_sc.foreign import TEXT_LENGTH
from creamas_sc.rpc.addresses import split_address
from creamas_sc.simulation_host.error_boundary import error_boundary, error_text

ADDRESS = "tcp://localhost:1/"
FAILURES = {ADDRESS: AgentError(address=ADDRESS, type_name="ValueError", message="no")}


def users_code(error: BaseException) -> None:
    raise error


def at_our_own(expression: str) -> None:
    """Evaluate within an error boundary as the product does; this module's frames are a user's."""
    scope = {
        "__name__": "creamas_sc.somewhere",
        "error_boundary": error_boundary,
        "Artifact": Artifact,
        "split_address": split_address,
    }
    exec(f"with error_boundary('{ADDRESS}'): {expression}", scope)


def test_errors_of_our_own_code_are_the_callers() -> None:
    with pytest.raises(BadValue, match="agent's address"):
        at_our_own("split_address('x')")
    with pytest.raises(BadArguments):
        at_our_own("Artifact(7, 1)")


@pytest.mark.parametrize(
    "error", [ValueError("v"), TypeError("t"), SystemExit(3), KeyboardInterrupt(), StopIteration()]
)
def test_errors_of_the_users_code_are_told_with_their_story(error: BaseException) -> None:
    with pytest.raises(AgentError) as caught, error_boundary(ADDRESS):
        users_code(error)
    reported = caught.value
    assert reported.address == ADDRESS
    assert reported.type_name == type(error).__name__
    assert "users_code" in reported.traceback_text


@pytest.mark.parametrize(
    "error", [NoSlaves("none"), NotExposed("not"), agent_errors("failed", FAILURES, [])]
)
def test_our_errors_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, error_boundary(ADDRESS):
        users_code(error)
    assert caught.value is error
    with pytest.raises(type(error)) as caught, error_boundary(ADDRESS):
        users_code(BaseExceptionGroup("of a nursery", [error]))
    assert caught.value is error


def test_a_refusal_within_the_users_code_is_no_refusal_of_the_call() -> None:
    with (
        pytest.raises(AgentError, match="NotExposed"),
        error_boundary(ADDRESS, within_user_code=True),
    ):
        users_code(NotExposed("not"))


async def test_cancellation_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as scope, error_boundary(ADDRESS):
        await trio.sleep(5)
    assert scope.cancelled_caught


async def test_cancellation_that_comes_with_an_error_goes_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_at_the_end() -> None:
        try:
            await trio.sleep(5)
        finally:
            raise SystemExit(3)

    with trio.move_on_after(1) as scope, error_boundary(ADDRESS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(5)
    assert scope.cancelled_caught
    assert "SystemExit" in caplog.text


def test_error_text() -> None:
    assert error_text(NoSlaves("none")) == "none"
    assert error_text(ValueError("odd")) == "ValueError: odd"
    group = ExceptionGroup("many", [ValueError(str(i)) for i in range(9)])
    assert error_text(group) == "many; ValueError: 0, ValueError: 1, ValueError: 2, 6 more"
    assert len(error_text(ValueError("x" * 9999))) <= TEXT_LENGTH + 50
