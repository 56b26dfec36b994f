"""The trio loop on which environments live, and calls into it from other threads and loops.

Every environment lives on one trio loop, together with its agents, listeners and readers:

- in a slave or host, the process's own loop (`adopt_running_loop` in its main task);
- in a script that uses ``async with MultiEnvironment(...)`` under trio, the user's loop, for the
  length of the block (also `adopt_running_loop`);
- in every other script, the loop of one background thread, started at its first use
  (`background_loop`) and stopped by an exit handler.

A public method may be called from anywhere. Awaited on its own loop it is a plain await; from
another loop it goes through `LoopHandle.call`, from plain code through `LoopHandle.run_sync`::

    calling thread                                the loop's thread
    --------------                                -----------------
    _start: token.run_sync_soon(start)   ----->   start: nursery.start_soon(call.run)
    wait for call.future                          call.run: await the work in call.scope
    Ctrl-C or cancellation: _cancel      ----->   call.scope.cancel()
    wait at most INTERRUPT_SECONDS       <-----   call.future: result or exception
    return or raise

- **Deadlines.** Each loop has its own clock, so what travels is the number of seconds left. If the
  loop's clock is ahead, the caller waits for its own scope to expire.
- **Cancellation.** The caller waits for the cancelled call to end, but no longer than
  INTERRUPT_SECONDS: work that shields itself cannot hold it back.
- **Blocking the loop.** `run_sync` on the loop's own thread would wait for itself: it raises.
- **Exceptions.** Everything a call raises, SystemExit and KeyboardInterrupt included, goes to its
  caller; the loop goes on.
- **The interpreter's exit.** Python joins ordinary threads before it runs exit handlers, so the
  background thread is a daemon thread. The exit handler asks its loop to end: what registered in
  `LoopHandle.closers` is closed, all of it at once and shielded; then the remaining tasks are
  cancelled; then the thread is joined, for at most EXIT_SECONDS.
- **Forks.** A forked child has the record of the thread but not the thread: the record is dropped,
  and a handle that was made in the parent refuses calls. A child that was forked by code on a loop,
  an agent's say, may compute, or run another program; if it goes back into the loop, it would be a
  second copy of the parent, on the same sockets: it ends as soon as the task suspends.

anyio's `BlockingPortal` does not fit: a cancelled future of it is done before the task has ended,
so it is impossible to wait for that end, and a SystemExit in one call stops the whole portal.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel
import sniffio
import trio

from creamas_sc.foreign import cut_traceback
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.nurseries import open_unwrapping_nursery, split_cancellation
from creamas_sc.runtime.signals import install_signal_handling

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a cancelled or interrupted call may take to end, in seconds.
INTERRUPT_SECONDS = 2.0
# How long the background thread may take to close what is open when the interpreter exits.
EXIT_SECONDS = 5.0


class _Call(NamedTuple):
    """One call into a loop, for which another thread or loop waits."""

    work: Callable[[], Awaitable[Any]]
    scope: trio.CancelScope
    future: Future[Any]

    async def run(self) -> None:
        try:
            with self.scope:
                self.future.set_result(await self.work())
                return
        except BaseException as error:  # for the caller to handle, KeyboardInterrupt included
            cancelled, failure = split_cancellation(error)
            if failure is None:
                failure = RuntimeError("the event loop was closed during this call")
            cut_traceback(failure)
            self.future.set_exception(failure)
            if cancelled is not None:
                raise cancelled from None
            return
        self.future.set_exception(RuntimeError("the call was cancelled"))


def _result(future: Future[Any]) -> Any:
    """The result of a call; an error has no frames of the future's."""
    try:
        return future.result()
    except BaseException as error:
        cut_traceback(error)
        raise


class LoopHandle:
    """A running trio loop that others can call into.

    Made on that loop, inside ``nursery``.

    Attributes:
        nursery: For the background tasks of what lives on the loop.
        closers: Close what lives on the loop, by its owner; see `aclose`.
        ended: Whether the loop takes no more calls.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.closers: dict[object, Callable[[], Awaitable[object]]] = {}
        self.ended = False
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._process = os.getpid()

    def is_current(self) -> bool:
        """Return whether the calling code runs on this loop's thread."""
        return threading.get_ident() == self._thread and not self.ended

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await ``function(*args)`` on this loop; the caller may be on any loop."""
        if self.is_current():
            return await function(*args)
        deadline = anyio.current_effective_deadline()
        scope = trio.CancelScope(relative_deadline=max(deadline - anyio.current_time(), 0))
        call = _Call(partial(function, *args), scope, Future())
        done, schedule = anyio.Event(), _scheduler()

        def notify(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the caller's loop has ended, and the caller with it
                schedule(done.set)

        call.future.add_done_callback(notify)
        self._start(call)
        try:
            await done.wait()
        except anyio.get_cancelled_exc_class():
            self._cancel(call)
            with anyio.move_on_after(INTERRUPT_SECONDS, shield=True):
                await done.wait()
            raise
        if call.scope.cancelled_caught:  # this loop's clock is ahead of the caller's
            await anyio.sleep_until(deadline)
            await anyio.lowlevel.checkpoint()
        return _result(call.future)  # type: ignore[no-any-return]

    def run_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on this loop and block until it is done.

        Ctrl-C cancels the call, waits for its end within a bound and is then raised.

        Raises:
            RuntimeError: Called on this loop itself, which it would block.
        """
        call = _Call(lambda: coroutine, trio.CancelScope(), Future())
        try:
            if self.is_current():
                name = getattr(coroutine, "__name__", "this")
                raise RuntimeError(
                    f"{name}: the sync form would block the loop that must do the "
                    "work; await the async form here (as_coro=True where the method has it)"
                )
            self._start(call)
            return _result(call.future)  # type: ignore[no-any-return]
        except KeyboardInterrupt:
            if not call.future.done():
                self._cancel(call)
                concurrent.futures.wait([call.future], INTERRUPT_SECONDS)
            raise
        finally:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # it never began: avoid a "never awaited" warning as well

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Have the loop call ``function(*args)``, which must not raise; from any thread."""
        self._token.run_sync_soon(function, *args)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task, from any thread; not in a forked process, nor once the loop has ended."""
        if os.getpid() == self._process:
            with suppress(trio.RunFinishedError):
                self.call_soon(self._start_task, function, args)

    def _start_task(self, function: Callable[..., Awaitable[object]], args: Any) -> None:
        with suppress(RuntimeError):  # the nursery is closed, and what lives here with it
            self.nursery.start_soon(function, *args)

    async def aclose(self) -> None:
        """Run all closers at once, then cancel every task of the nursery.

        Closers bound themselves and are shielded: Ctrl-C or the script's end is an orderly close.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as closing:
                for close in self.closers.values():
                    closing.start_soon(_close_logged, close)
        self.nursery.cancel_scope.cancel()

    def _start(self, call: _Call) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("a forked process cannot use the event loop of its parent")

        def start() -> None:
            try:
                self.nursery.start_soon(call.run)
            except RuntimeError:
                call.future.set_exception(RuntimeError("the event loop is closed"))

        try:
            self._token.run_sync_soon(start)
        except trio.RunFinishedError:
            raise RuntimeError("the event loop has ended") from None

    def _cancel(self, call: _Call) -> None:
        with suppress(trio.RunFinishedError):  # the call has ended with its loop
            self._token.run_sync_soon(call.scope.cancel)


async def _close_logged(close: Callable[[], Awaitable[object]]) -> None:
    try:
        await close()
    except Exception:  # there is no caller left to raise it to
        log.exception("closing at the end failed")


def _scheduler() -> Callable[[Callable[[], object]], object]:
    """Return what schedules a callback on the calling task's loop, from any thread."""
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio

    return asyncio.get_running_loop().call_soon_threadsafe


# ---- methods in two forms


class _HasLoop(Protocol):
    """Lives on a loop, which `get_loop` chooses at its first call and keeps in ``_loop``."""

    @property
    def _loop(self) -> LoopHandle | None: ...

    def get_loop(self) -> LoopHandle: ...


AsyncMethod = TypeVar("AsyncMethod", bound=Callable[..., Coroutine[Any, Any, Any]])


def on_loop(method: AsyncMethod) -> AsyncMethod:
    """Make an async method run on its object's loop, wherever it is awaited."""

    @wraps(method)
    async def wrapper(self: _HasLoop, /, *args: Any, **kwargs: Any) -> Any:
        loop = self._loop or self.get_loop()
        if loop.is_current():
            return await method(self, *args, **kwargs)
        return await loop.call(partial(method, self, *args, **kwargs))

    return cast("AsyncMethod", wrapper)


def sync_or_coro(owner: _HasLoop, coroutine: Coroutine[Any, Any, T], as_coro: bool) -> Any:
    """Return ``coroutine`` itself if ``as_coro``, else block until it is done.

    Raises:
        RuntimeError: The blocking form was called on the owner's loop.
    """
    return coroutine if as_coro else owner.get_loop().run_sync(coroutine)


# ---- the loops of this process


# The loop of the `adopt_running_loop` block around the running task.
_around: ContextVar[LoopHandle | None] = ContextVar("loop", default=None)
_live: set[LoopHandle] = set()
_background: LoopHandle | None = None
_background_lock = threading.Lock()


def current_loop() -> LoopHandle | None:
    """Return the loop of the block around the caller, or the background loop if called on it."""
    around = _around.get()
    if around is not None and not around.ended:
        return around
    return _background if _background is not None and _background.is_current() else None


def loop_of_thread() -> LoopHandle | None:
    """Return the loop that runs on the calling thread, where code must not block."""
    return next((loop for loop in [*_live] if loop.is_current()), None)


class adopt_running_loop:
    """``async with adopt_running_loop() as loop``: environments may live on the running trio loop.

    At the end of the block, what still lives or runs there is closed, cancelled and waited for.
    """

    async def __aenter__(self) -> LoopHandle:
        self._nurseries = open_unwrapping_nursery()
        self._loop = LoopHandle(await self._nurseries.__aenter__())
        self._token = _around.set(self._loop)
        _live.add(self._loop)
        return self._loop

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        try:
            await self._loop.aclose()
            return await self._nurseries.__aexit__(*exc_info)
        finally:
            self._loop.ended = True
            _live.discard(self._loop)
            _around.reset(self._token)


def background_loop() -> LoopHandle:
    """Return the loop of this process's background thread, which the first call starts."""
    global _background
    end_script_load()
    # Each time: only the main thread can, and a handler of the user's may have come and gone.
    install_signal_handling()
    if _background is None:
        with _background_lock:
            if _background is None:
                _background, stop = _start_thread()
                atexit.register(stop)
    return _background


def _start_thread() -> tuple[LoopHandle, Callable[[], None]]:
    """Start a thread with a loop; what is returned with the loop stops both."""
    started: Future[tuple[LoopHandle, trio.Event]] = Future()

    async def main() -> None:
        async with adopt_running_loop() as loop:
            stop_requested = trio.Event()
            started.set_result((loop, stop_requested))
            await stop_requested.wait()

    thread = threading.Thread(target=trio.run, args=(main,), name="creamas-loop", daemon=True)
    thread.start()
    loop, stop_requested = started.result()

    def stop() -> None:
        with suppress(trio.RunFinishedError):
            loop.call_soon(stop_requested.set)
            thread.join(EXIT_SECONDS)

    return loop, stop


class _EndsChild(trio.abc.Instrument):
    """Ends a forked child that goes back into its parent's loop."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        log.error(
            "the forked process %d returned into its parent's event loop and was ended: have it "
            "call os._exit() when its work is done",
            os.getpid(),
        )
        os._exit(1)


def _leave_loops() -> None:
    global _background
    if loop_of_thread() is not None:
        trio.lowlevel.add_instrument(_EndsChild())
    if _background is not None:
        _live.discard(_background)
        _background = None


os.register_at_fork(after_in_child=_leave_loops)
