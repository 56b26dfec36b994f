"""Calling into an event loop from every kind of thread, and what its end does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from creamas_sc.runtime import event_loop
from creamas_sc.runtime.event_loop import (
    LoopHandle,
    _start_thread,
    adopt_running_loop,
    background_loop,
    current_loop,
    on_loop,
    sync_or_coro,
)
from creamas_sc.util import run
from tests.support.programs import run_code

BOUND_SECONDS = 10


class Work:
    """What is done on the loop, and what became of it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.cancelled = False

    async def where(self) -> int:
        await trio.lowlevel.checkpoint()
        return threading.get_ident()

    async def fail(self, kind: type[BaseException]) -> None:
        await trio.lowlevel.checkpoint()
        if kind is ExceptionGroup:
            raise ExceptionGroup("raised on the loop", [ValueError()])
        raise kind("raised on the loop")

    async def sleep(self) -> None:
        self.begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


Caller = Callable[..., Any]


def from_a_thread(
    loop: LoopHandle, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any
) -> Any:
    return loop.run_sync(function(*args))


def from_asyncio(loop: LoopHandle, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return asyncio.run(loop.call(function, *args))


def from_trio(loop: LoopHandle, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return trio.run(loop.call, function, *args)


callers = pytest.mark.parametrize("call", [from_a_thread, from_asyncio, from_trio])


@callers
def test_a_call_runs_on_the_loop(call: Caller) -> None:
    loop = background_loop()
    there = call(loop, Work().where)
    assert there != threading.get_ident()
    assert there == loop.run_sync(Work().where())


@callers
@pytest.mark.parametrize(
    "kind", [ValueError, KeyError, SystemExit, KeyboardInterrupt, ExceptionGroup]
)
def test_an_error_reaches_the_caller(call: Caller, kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="raised on the loop"):
        call(background_loop(), Work().fail, kind)
    assert call(background_loop(), Work().where)  # the loop goes on


def test_many_threads_call_at_once() -> None:
    loop = background_loop()
    found: list[int] = []

    async def double(n: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * n

    def work(n: int) -> None:
        found.extend(loop.run_sync(double(10 * n + i)) for i in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SECONDS)
    assert sorted(found) == [2 * n for n in range(80)]


def test_a_cancelled_asyncio_task_cancels_the_work_on_the_loop() -> None:
    work = Work()

    async def main() -> None:
        task = asyncio.ensure_future(background_loop().call(work.sleep))
        await asyncio.to_thread(work.begun.wait, BOUND_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert work.ended.is_set()

    asyncio.run(main())
    assert work.cancelled


def test_a_cancelled_trio_scope_cancels_the_work_on_the_loop() -> None:
    work = Work()

    async def main() -> bool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(background_loop().call, work.sleep)
                await trio.to_thread.run_sync(work.begun.wait, BOUND_SECONDS)
                scope.cancel()
        assert work.ended.is_set()
        return scope.cancelled_caught

    assert trio.run(main)
    assert work.cancelled


def test_a_cancelled_caller_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "INTERRUPT_SECONDS", 0.01)
    release = trio.Event()

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await background_loop().call(shielded)

    trio.run(main)
    background_loop().call_soon(release.set)


async def sync_on_the_loop(loop: LoopHandle) -> None:
    with pytest.raises(RuntimeError, match=r"where: .* await the async form"):
        loop.run_sync(Work().where())
    with pytest.raises(RuntimeError, match=r"where: .* await the async form"):
        run(Work().where())
    assert await loop.call(Work().where) == threading.get_ident()


def test_the_sync_form_on_the_background_loop_is_refused() -> None:
    background_loop().run_sync(sync_on_the_loop(background_loop()))


async def test_the_sync_form_on_an_adopted_loop_is_refused() -> None:
    async with adopt_running_loop() as loop:
        await sync_on_the_loop(loop)


class Owner:
    """An object that lives on a loop."""

    def __init__(self, loop: LoopHandle) -> None:
        self._loop = loop

    def get_loop(self) -> LoopHandle:
        return self._loop

    @on_loop
    async def where(self, *args: Any, **kwargs: Any) -> Any:
        """Say where."""
        await trio.lowlevel.checkpoint()
        return threading.get_ident(), args, kwargs


def test_methods_on_the_loop_and_their_two_forms() -> None:
    owner = Owner(background_loop())
    thread = background_loop().run_sync(Work().where())
    expected = (thread, (1,), {"b": 2})
    assert trio.run(lambda: owner.where(1, b=2)) == expected
    assert asyncio.run(owner.where(1, b=2)) == expected
    assert sync_or_coro(owner, owner.where(1, b=2), as_coro=False) == expected
    assert asyncio.run(sync_or_coro(owner, owner.where(1, b=2), as_coro=True)) == expected
    assert Owner.where.__doc__ == "Say where."


# ---- run


def test_run() -> None:
    assert run(Work().where()) == background_loop().run_sync(Work().where())
    with pytest.raises(ValueError, match="raised on the loop"):
        run(Work().fail(ValueError))


def test_run_within_a_running_loop() -> None:
    async def cell() -> int:
        result: int = run(Work().where())
        return result

    assert asyncio.run(cell()) == trio.run(cell) == run(Work().where())


# ---- the background thread


def test_the_background_loop_is_one_for_the_process() -> None:
    loops: list[LoopHandle] = []
    threads = [threading.Thread(target=lambda: loops.append(background_loop())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SECONDS)
    assert loops == [background_loop()] * 5
    assert background_loop().run_sync(_current()) is background_loop()
    assert current_loop() is None


async def _current() -> LoopHandle | None:
    return current_loop()


@pytest.mark.parametrize("nested", [False, True])
def test_the_background_thread_starts_and_stops(nested: bool) -> None:
    work = Work()
    closed: list[int] = []
    loop, stop = _start_thread()

    async def close() -> None:
        await trio.lowlevel.checkpoint()
        closed.append(threading.get_ident())

    errors: list[BaseException] = []

    async def sleep() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.sleep)

    def call() -> None:
        try:
            loop.run_sync(sleep() if nested else work.sleep())
        except RuntimeError as error:
            errors.append(error)

    loop.closers["it"] = close
    caller = threading.Thread(target=call)
    caller.start()
    assert work.begun.wait(BOUND_SECONDS)
    thread = loop.run_sync(work.where())
    stop()
    caller.join(BOUND_SECONDS)
    assert thread not in {each.ident for each in threading.enumerate()}
    assert closed == [thread]
    assert work.cancelled
    assert "closed during this call" in str(errors[0])
    with pytest.raises(RuntimeError, match="the event loop has ended"):
        loop.run_sync(work.where())
    stop()  # a second call is not an error


def test_a_closer_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop, stop = _start_thread()
    closed: list[bool] = []

    async def close() -> None:
        await trio.lowlevel.checkpoint()
        closed.append(True)

    async def close_badly() -> None:
        raise ZeroDivisionError

    loop.closers.update({1: close_badly, 2: close})
    stop()
    assert closed == [True]
    (record,) = caplog.records
    assert record.exc_info is not None


# ---- the running loop, adopted


async def test_adopted_loop_ends_its_tasks() -> None:
    work = Work()
    async with adopt_running_loop() as loop:
        assert current_loop() is loop
        loop.nursery.start_soon(work.sleep)
        await trio.testing.wait_all_tasks_blocked()
    assert work.cancelled
    assert current_loop() is None


async def test_adopted_loop_ends_its_tasks_when_the_block_raises() -> None:
    work = Work()

    async def block() -> None:
        async with adopt_running_loop() as loop:
            loop.nursery.start_soon(work.sleep)
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        await block()
    assert work.cancelled


async def test_adopted_loops_nest() -> None:
    async with adopt_running_loop() as outer:
        async with adopt_running_loop() as inner:
            assert current_loop() is inner
        assert current_loop() is outer


async def test_adopted_loop_takes_calls_from_threads() -> None:
    async with adopt_running_loop() as loop:
        there = await trio.to_thread.run_sync(lambda: loop.run_sync(Work().where()))
        assert there == threading.get_ident()
    with pytest.raises(RuntimeError, match="the event loop is closed"):
        await trio.to_thread.run_sync(lambda: loop.run_sync(Work().where()))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_callers_deadline_crosses_as_seconds(backend: str) -> None:
    loop = background_loop()
    left: list[float] = []

    async def look() -> None:
        left.append(trio.current_effective_deadline() - trio.current_time())

    async def main() -> None:
        with anyio.fail_after(50):
            await loop.call(look)
        await loop.call(look)

    anyio.run(main, backend=backend)
    assert 40 < left[0] <= 50
    assert left[1] == float("inf")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_deadline_that_the_loop_sees_first_is_the_callers(backend: str) -> None:
    work = Work()

    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            await background_loop().call(work.sleep)
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    assert work.cancelled


def test_signals_are_handled_even_if_a_thread_is_the_first_to_use_the_loop() -> None:
    code = """
import signal, threading
from creamas_sc.runtime.event_loop import background_loop
thread = threading.Thread(target=background_loop)
thread.start()
thread.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
background_loop()
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
"""
    done = run_code(code)
    assert done.returncode == 0, done.stderr


def test_sigterm_is_handled_after_a_handler_of_the_users_until_it_has_come_once() -> None:
    code = """
import signal
from creamas_sc.runtime.event_loop import background_loop
signal.signal(signal.SIGTERM, lambda *_: None)
background_loop()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
background_loop()
try:
    signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    background_loop()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    done = run_code(code)
    assert done.returncode == 0, done.stderr
