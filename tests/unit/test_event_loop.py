"""Calling into the home loop from every kind of thread, and what its end does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from creamas_sc.runtime import event_loop as home_module
from creamas_sc.runtime.event_loop import (
    LoopHandle,
    _Portal,
    adopt_running_loop,
    background_loop,
    current_loop,
    on_loop,
    run_coroutine,
    sync_or_coro,
)

BOUND_SECONDS = 10


class Work:
    """What is done at home, and what became of it."""

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
            raise ExceptionGroup("told at home", [ValueError()])
        raise kind("told at home")

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


def from_a_thread(home: LoopHandle, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return home.call_sync(function, *args)


def from_asyncio(home: LoopHandle, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return asyncio.run(home.call(function, *args))


def from_trio(home: LoopHandle, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return trio.run(home.call, function, *args)


callers = pytest.mark.parametrize("call", [from_a_thread, from_asyncio, from_trio])


@callers
def test_a_call_runs_at_home(call: Caller) -> None:
    home = background_loop()
    there = call(home, Work().where)
    assert there != threading.get_ident()
    assert there == home.call_sync(Work().where)


@callers
@pytest.mark.parametrize(
    "kind", [ValueError, KeyError, SystemExit, KeyboardInterrupt, ExceptionGroup]
)
def test_an_error_reaches_the_caller(call: Caller, kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="told at home"):
        call(background_loop(), Work().fail, kind)
    assert call(background_loop(), Work().where)  # home goes on


def test_many_threads_call_at_once() -> None:
    home = background_loop()
    found: list[int] = []

    async def double(n: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * n

    def work(n: int) -> None:
        found.extend(home.call_sync(double, 10 * n + i) for i in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SECONDS)
    assert sorted(found) == [2 * n for n in range(80)]


def test_a_cancelled_asyncio_task_cancels_the_work_at_home() -> None:
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


def test_a_cancelled_trio_scope_cancels_the_work_at_home() -> None:
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
    monkeypatch.setattr(home_module, "INTERRUPT_SECONDS", 0.01)
    release = trio.Event()

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await background_loop().call(shielded)

    trio.run(main)
    background_loop().call_soon(release.set)


async def sync_on_home(home: LoopHandle) -> None:
    with pytest.raises(RuntimeError, match=r"where: .* await the async form"):
        home.call_sync(Work().where)
    with pytest.raises(RuntimeError, match=r"where: .* await the async form"):
        run_coroutine(Work().where())
    assert await home.call(Work().where) == threading.get_ident()


def test_the_sync_form_on_the_portals_loop_is_refused() -> None:
    background_loop().call_sync(sync_on_home, background_loop())


async def test_the_sync_form_on_an_own_home_is_refused() -> None:
    async with adopt_running_loop() as home:
        await sync_on_home(home)


class Owner:
    """An object with a home."""

    def __init__(self, home: LoopHandle) -> None:
        self.home = home

    def get_loop(self) -> LoopHandle:
        return self.home

    @on_loop
    async def where(self, *args: Any, **kwargs: Any) -> Any:
        """Say where."""
        await trio.lowlevel.checkpoint()
        return threading.get_ident(), args, kwargs


def test_methods_at_home_and_their_two_forms() -> None:
    owner = Owner(background_loop())
    thread = background_loop().call_sync(Work().where)
    expected = (thread, (1,), {"b": 2})
    assert trio.run(lambda: owner.where(1, b=2)) == expected
    assert asyncio.run(owner.where(1, b=2)) == expected
    assert sync_or_coro(owner, owner.where(1, b=2), as_coro=False) == expected
    assert asyncio.run(sync_or_coro(owner, owner.where(1, b=2), as_coro=True)) == expected
    assert Owner.where.__doc__ == "Say where."


# ---- run_coroutine


def test_run_coroutine() -> None:
    assert run_coroutine(Work().where()) == background_loop().call_sync(Work().where)
    with pytest.raises(ValueError, match="told at home"):
        run_coroutine(Work().fail(ValueError))


def test_run_coroutine_within_a_running_loop() -> None:
    async def cell() -> int:
        return run_coroutine(Work().where())

    assert asyncio.run(cell()) == trio.run(cell) == run_coroutine(Work().where())


# ---- the portal


def test_the_portal_is_one_for_the_process() -> None:
    homes: list[LoopHandle] = []
    threads = [threading.Thread(target=lambda: homes.append(background_loop())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SECONDS)
    assert homes == [background_loop()] * 5
    assert background_loop().call_sync(_current) is background_loop()
    assert current_loop() is None


async def _current() -> LoopHandle | None:
    return current_loop()


@pytest.mark.parametrize("nested", [False, True])
def test_a_portal_starts_and_stops(nested: bool) -> None:
    portal, work = _Portal(), Work()
    closed: list[int] = []
    home = portal.start()

    async def close() -> None:
        await trio.lowlevel.checkpoint()
        closed.append(threading.get_ident())

    errors: list[BaseException] = []

    async def sleep() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.sleep)

    def call() -> None:
        try:
            home.call_sync(sleep if nested else work.sleep)
        except RuntimeError as error:
            errors.append(error)

    home.closers["it"] = close
    caller = threading.Thread(target=call)
    caller.start()
    assert work.begun.wait(BOUND_SECONDS)
    thread = home.call_sync(work.where)
    portal.stop()
    caller.join(BOUND_SECONDS)
    assert not portal._thread.is_alive()
    assert closed == [thread]
    assert work.cancelled
    assert "closed under this call" in str(errors[0])
    with pytest.raises(RuntimeError, match="the home loop has ended"):
        home.call_sync(work.where)
    portal.stop()  # once more is no error


def test_a_closer_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    portal = _Portal()
    home = portal.start()
    closed: list[bool] = []

    async def close() -> None:
        await trio.lowlevel.checkpoint()
        closed.append(True)

    async def close_badly() -> None:
        raise ZeroDivisionError

    home.closers.update({1: close_badly, 2: close})
    portal.stop()
    assert closed == [True]
    (record,) = caplog.records
    assert record.exc_info is not None


# ---- a home of one's own


async def test_own_home_ends_its_tasks() -> None:
    work = Work()
    async with adopt_running_loop() as home:
        assert current_loop() is home
        home.nursery.start_soon(work.sleep)
        await trio.testing.wait_all_tasks_blocked()
    assert work.cancelled
    assert current_loop() is None


async def test_own_home_ends_its_tasks_when_the_block_raises() -> None:
    work = Work()

    async def block() -> None:
        async with adopt_running_loop() as home:
            home.nursery.start_soon(work.sleep)
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        await block()
    assert work.cancelled


async def test_own_homes_nest() -> None:
    async with adopt_running_loop() as outer:
        async with adopt_running_loop() as inner:
            assert current_loop() is inner
        assert current_loop() is outer


async def test_own_home_takes_calls_from_threads() -> None:
    async with adopt_running_loop() as home:
        there = await trio.to_thread.run_sync(home.call_sync, Work().where)
        assert there == threading.get_ident()
    with pytest.raises(RuntimeError, match="the home loop is closed"):
        await trio.to_thread.run_sync(home.call_sync, Work().where)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_callers_deadline_crosses_as_seconds(backend: str) -> None:
    home = background_loop()
    left: list[float] = []

    async def look() -> None:
        left.append(trio.current_effective_deadline() - trio.current_time())

    async def main() -> None:
        with anyio.fail_after(50):
            await home.call(look)
        await home.call(look)

    anyio.run(main, backend=backend)
    assert 40 < left[0] <= 50
    assert left[1] == float("inf")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_deadline_that_home_sees_first_is_the_callers(backend: str) -> None:
    work = Work()

    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            await background_loop().call(work.sleep)
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    assert work.cancelled
