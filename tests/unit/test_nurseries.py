"""What comes out of nurseries: one error as it is, cancellation apart from failures."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
from trio.testing import MockClock

from creamas_sc.runtime.nurseries import (
    cancellation_in,
    open_unwrapping_nursery,
    split_cancellation,
)


class Failure(Exception):
    """One that can be watched."""


async def fail(error: BaseException) -> None:
    raise error


async def cancelled_in_a_nursery() -> BaseException:
    """A group of two tasks' cancellation, as code within a cancelled scope meets it."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        except BaseException as error:
            return error
    raise AssertionError("it was not cancelled")


async def test_the_only_error_comes_as_it_is() -> None:
    error = ValueError()
    error.__context__ = context = KeyError()
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(fail, error)
    assert caught.value is error
    assert error.__context__ is context
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        async with open_unwrapping_nursery():
            raise error
    assert caught.value is error


async def test_several_errors_come_as_a_group() -> None:
    with pytest.RaisesGroup(ValueError, KeyError):
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(fail, ValueError())
            nursery.start_soon(fail, KeyError())


async def test_a_group_that_is_raised_stays_one() -> None:
    with pytest.RaisesGroup(ValueError):
        async with open_unwrapping_nursery():
            raise ExceptionGroup("a user's own", [ValueError()])


async def test_an_error_holds_nothing_back() -> None:
    async def fail_anew() -> None:
        raise Failure

    async def catch_it() -> weakref.ref[BaseException]:
        try:
            async with open_unwrapping_nursery() as nursery:
                nursery.start_soon(fail_anew)
        except Failure as error:
            return weakref.ref(error)
        raise AssertionError("nothing was raised")

    gc.disable()
    try:
        caught = await catch_it()
        await trio.lowlevel.checkpoint()
        assert caught() is None
    finally:
        gc.enable()


async def test_a_cancelled_block_ends_its_scope(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_only_error_of_nurseries_within_nurseries_comes_as_it_is() -> None:
    async def fail_within() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, Failure())

    with pytest.raises(Failure):
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(fail_within)


async def test_cancellation_is_told_from_failure(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = await cancelled_in_a_nursery()
    assert split_cancellation(cancelled)[1] is None
    assert cancellation_in(cancelled) is not None
    failure = ValueError()
    assert split_cancellation(failure) == (None, failure)
    assert cancellation_in(failure) is None
    assert cancellation_in(ExceptionGroup("", [failure])) is None
    assert caplog.records == []


async def test_a_failure_beside_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    both = BaseExceptionGroup("", [await cancelled_in_a_nursery(), ValueError("beside")])
    cancelled = cancellation_in(both)
    assert cancelled is not None
    assert split_cancellation(cancelled)[1] is None
    assert "ValueError: beside" in caplog.text
