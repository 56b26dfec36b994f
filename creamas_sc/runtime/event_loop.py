"""The home loop: the one trio loop on which an environment's agents, listeners and readers live.

In a slave it is the process's own loop. In a script it is the user's trio loop for an
``async with`` block under trio, else a background thread of the process, started on first use and
always joined. Every public method may be called from anywhere: `LoopHandle.call` (await it under
trio or asyncio) and `LoopHandle.call_sync` (from any thread) run its body on that loop.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import math
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel
import sniffio
import trio

from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.interrupts import install_signal_handling
from creamas_sc.runtime.nurseries import open_unwrapping_nursery, split_cancellation

__all__ = ["LoopHandle", "background_loop", "current_loop", "on_loop", "run_coroutine"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# After a Ctrl-C: how long the interrupted call may take to end gracefully, in seconds.
INTERRUPT_SECONDS = 2.0
# At the interpreter's exit: how long the background thread may take to close what is open.
EXIT_SECONDS = 5.0


class _Job:
    """One call that another thread waits for."""

    def __init__(
        self,
        function: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        seconds: float = math.inf,
    ) -> None:
        self.function = function
        self.args = args
        # Until the caller's deadline: each loop has a clock of its own.
        self.seconds = seconds
        self.scope = trio.CancelScope()
        self.future: Future[Any] = Future()

    async def run(self) -> None:
        try:
            with self.scope:
                self.scope.deadline = trio.current_time() + self.seconds
                self.future.set_result(await self.function(*self.args))
                return
        except BaseException as error:  # the caller's to handle, KeyboardInterrupt included
            cancelled, failure = split_cancellation(error)
            if failure is None:
                failure = RuntimeError("the home loop was closed under this call")
            self.future.set_exception(failure)
            if cancelled is not None:
                raise cancelled from None
            return
        self.future.set_exception(RuntimeError("the call was cancelled"))


class LoopHandle:
    """A running trio loop that others can call into; made on that loop, inside ``nursery``."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        # What closes the things that live here, in the order they were made; see `aclose`.
        self.closers: dict[object, Callable[[], Awaitable[object]]] = {}
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._process = os.getpid()
        self.ended = False

    def is_current(self) -> bool:
        """Whether the calling code runs on this loop's thread."""
        return threading.get_ident() == self._thread and not self.ended

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await ``function(*args)`` at home; the caller may live on any loop."""
        if self.is_current():
            return await function(*args)
        deadline = anyio.current_effective_deadline()
        job = _Job(function, args, deadline - anyio.current_time())
        done, notify = _thread_safe_event()
        job.future.add_done_callback(lambda _: notify())
        self._start(job)
        try:
            await done.wait()
        except anyio.get_cancelled_exc_class():
            self._cancel(job)
            with anyio.move_on_after(INTERRUPT_SECONDS, shield=True):
                await done.wait()
            raise
        if job.scope.cancelled_caught:  # home's clock was ahead: the caller's scope does its part
            await anyio.sleep_until(deadline)
            await anyio.lowlevel.checkpoint()
        return job.future.result()  # type: ignore[no-any-return]

    def call_sync(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``function(*args)`` at home and block until it is done.

        Ctrl-C cancels the call, waits for its end within a bound and is then raised.

        Raises:
            RuntimeError: Called on the home loop itself, which it would block.
        """
        if self.is_current():
            name = getattr(function, "__name__", "this")
            raise RuntimeError(
                f"{name}: the sync form would block the loop that must do the work; "
                "await the async form here (as_coro=True where the method has it)"
            )
        job = _Job(function, args)
        try:
            self._start(job)
            return job.future.result()  # type: ignore[no-any-return]
        except KeyboardInterrupt:
            if not job.future.done():
                self._cancel(job)
                _wait_bounded(job.future, INTERRUPT_SECONDS)
            raise

    async def aclose(self) -> None:
        """Close what is still open here, then end every task of the nursery.

        Closers bound themselves, and are not cancelled: a Ctrl-C or a script's end is a close.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as closing:
                for close in self.closers.values():
                    closing.start_soon(_close_logged, close)
        self.nursery.cancel_scope.cancel()

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function(*args)`` called at home soon; from any thread. It must not raise."""
        self._token.run_sync_soon(function, *args)

    def _start(self, job: _Job) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("a forked process has no home loop: use it where it was made")

        def start() -> None:
            try:
                self.nursery.start_soon(job.run)
            except RuntimeError:  # the nursery is closed
                job.future.set_exception(RuntimeError("the home loop is closed"))

        try:
            self._token.run_sync_soon(start)
        except trio.RunFinishedError:
            raise RuntimeError("the home loop has ended") from None

    def _cancel(self, job: _Job) -> None:
        try:
            self._token.run_sync_soon(job.scope.cancel)
        except trio.RunFinishedError:
            return  # and with it the job


async def _close_logged(close: Callable[[], Awaitable[object]]) -> None:
    try:
        await close()
    except Exception:  # nobody is left to raise it to
        log.exception("closing at the end failed")


def _wait_bounded(future: Future[Any], seconds: float) -> None:
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    ended.wait(seconds)


def _thread_safe_event() -> tuple[anyio.Event, Callable[[], None]]:
    """An event of the calling task's loop, and what sets it from any thread."""
    event = anyio.Event()
    if sniffio.current_async_library() == "trio":
        token = trio.lowlevel.current_trio_token()
        tell: Callable[[Callable[[], object]], object] = token.run_sync_soon
    else:
        import asyncio

        tell = asyncio.get_running_loop().call_soon_threadsafe

    def notify() -> None:
        try:
            tell(event.set)
        except RuntimeError:  # the waiter's loop has ended, and the waiter with it
            return

    return event, notify


def is_ctrl_c(error: BaseException) -> bool:
    """Whether ``error`` is a real Ctrl-C rather than a KeyboardInterrupt that user code raised.

    Only a script's main thread gets one; slaves ignore the signal.
    """
    if isinstance(error, BaseExceptionGroup):  # out of a nursery of the user's
        return any(map(is_ctrl_c, error.exceptions))
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    )


class _HasLoop(Protocol):
    def get_loop(self) -> LoopHandle: ...


AsyncMethod = TypeVar("AsyncMethod", bound=Callable[..., Coroutine[Any, Any, Any]])


def on_loop(method: AsyncMethod) -> AsyncMethod:
    """Make an async method run on its object's home loop, wherever it is awaited."""

    @wraps(method)
    async def wrapper(self: _HasLoop, /, *args: Any, **kwargs: Any) -> Any:
        home = self.get_loop()
        if home.is_current():
            return await method(self, *args, **kwargs)
        return await home.call(partial(method, self, *args, **kwargs))

    return cast("AsyncMethod", wrapper)


def sync_or_coro(owner: _HasLoop, coroutine: Coroutine[Any, Any, T], as_coro: bool) -> Any:
    """The two forms of a method: ``coroutine`` itself, or what it returns after blocking for it.

    Raises:
        RuntimeError: The blocking form was called on the owner's home loop.
    """
    return coroutine if as_coro else _block(owner.get_loop(), coroutine)


def _block(home: LoopHandle, coroutine: Coroutine[Any, Any, T]) -> T:
    async def body() -> T:
        return await coroutine

    body.__name__ = getattr(coroutine, "__name__", "run")
    try:
        return home.call_sync(body)
    finally:
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            coroutine.close()  # it never began: no warning about that on top of the error


# ---- the script's background thread


class _Portal:
    """The background thread of this process, and its loop."""

    def __init__(self) -> None:
        self.home: LoopHandle | None = None
        self._ready = threading.Event()
        self._stop = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        # A daemon thread, joined by the exit handler: the interpreter waits for other threads
        # before it runs exit handlers, and this one ends only when told.
        self._thread = threading.Thread(target=self._run, name="creamas-home", daemon=True)

    def start(self) -> LoopHandle:
        self._thread.start()
        self._ready.wait()
        assert self.home is not None
        return self.home

    def _run(self) -> None:
        trio.run(self._main)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self.home = LoopHandle(nursery)
            self._ready.set()
            await self._stop.wait()
            await self.home.aclose()

    def stop(self) -> None:
        """Cancel what runs there, let it close what it owns, and join the thread."""
        assert self._token is not None
        try:
            self._token.run_sync_soon(self._stop.set)
        except trio.RunFinishedError:
            return
        self._thread.join(EXIT_SECONDS)


_portal: _Portal | None = None
_portal_lock = threading.Lock()


def background_loop() -> LoopHandle:
    """The process's background home loop, started at the first call."""
    global _portal
    end_script_load()
    install_signal_handling()
    with _portal_lock:
        if _portal is None:
            portal = _Portal()
            portal.start()
            atexit.register(portal.stop)
            _portal = portal
        assert _portal.home is not None
        return _portal.home


def _forget_portal() -> None:
    global _portal
    _portal = None


# A forked child has the record of the thread but not the thread.
os.register_at_fork(after_in_child=_forget_portal)


# ---- the current home


# The home of the `adopt_running_loop` block around the running task.
_around: ContextVar[LoopHandle | None] = ContextVar("home", default=None)
_own_homes: set[LoopHandle] = set()


def current_loop() -> LoopHandle | None:
    """The home to which what is made here belongs: of the block around it, or the thread's."""
    around = _around.get()
    if around is not None and not around.ended:
        return around
    if _portal is not None and _portal.home is not None and _portal.home.is_current():
        return _portal.home
    return None


def loop_of_thread() -> LoopHandle | None:
    """A home whose loop runs on the calling thread: code there must not block."""
    portal = None if _portal is None else _portal.home
    homes = [*_own_homes] if portal is None else [*_own_homes, portal]
    return next((home for home in homes if home.is_current()), None)


class adopt_running_loop:
    """``async with adopt_running_loop() as home``: the running trio loop is home within the block.

    What still runs at home when the block ends is closed, cancelled and waited for.
    """

    async def __aenter__(self) -> LoopHandle:
        install_signal_handling()
        self._nurseries = open_unwrapping_nursery()
        self._home = LoopHandle(await self._nurseries.__aenter__())
        self._token = _around.set(self._home)
        _own_homes.add(self._home)
        return self._home

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        try:
            await self._home.aclose()
            return await self._nurseries.__aexit__(*exc_info)
        finally:
            self._home.ended = True
            _own_homes.discard(self._home)
            _around.reset(self._token)


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` on a home loop and block until it is done.

    Raises:
        RuntimeError: Called on a home loop, which this would block: await it there.
    """
    try:
        home = loop_of_thread() or background_loop()
    except BaseException:  # a script's second load ends here: nobody will await it
        coroutine.close()
        raise
    return _block(home, coroutine)
