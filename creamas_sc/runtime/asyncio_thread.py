"""asyncio for agents, which run under trio: one event loop in a thread, started at its first use.

Each call is a task of that loop and is waited for: its end, its cancellation included, is the end
of `run_asyncio`. The thread itself holds nothing and ends with the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from creamas_sc.runtime.event_loop import INTERRUPT_SECONDS

if TYPE_CHECKING:  # importing asyncio takes long: a slave does it at the first call
    import asyncio

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


async def run_asyncio(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await ``function(*args)`` under asyncio, in another thread; for libraries that need it.

    Cancellation and deadlines of the caller cancel it there. It may call other agents, through
    proxies; whatever else it shares with the agent, it shares with another thread: publish after
    it, not in it.

    Args:
        function: Returns something to await. All calls in a process share one loop, so that a
            session of one call can be used by the next.

    Raises:
        Exception: What the function raised.
        RuntimeError: It was cancelled, and not by the caller.
    """
    import asyncio

    loop, token = _background(), trio.lowlevel.current_trio_token()
    done, tasks = trio.Event(), list[asyncio.Task[None]]()
    results, errors = list[T](), list[BaseException]()

    async def call() -> None:
        try:
            results.append(await function(*args))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit would end the loop; it is the caller's
            errors.append(error)

    def finished(_: object) -> None:
        with suppress(trio.RunFinishedError):  # the caller is gone, with its loop
            token.run_sync_soon(done.set)

    def start() -> None:
        tasks.append(loop.create_task(call()))
        tasks[0].add_done_callback(finished)

    loop.call_soon_threadsafe(start)
    try:
        await done.wait()
    except trio.Cancelled:
        loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # after start
        with trio.move_on_after(INTERRUPT_SECONDS, shield=True):
            await done.wait()
        raise
    if errors:
        raise errors[0]
    if not results:
        raise RuntimeError(f"{function!r} was cancelled under asyncio")
    return results[0]


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        # Of a task that a call has started; the loop goes on.
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


def _background() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            import asyncio

            _loop = asyncio.new_event_loop()
            threading.Thread(
                target=_serve, args=(_loop,), name="creamas-asyncio", daemon=True
            ).start()
        return _loop


def _forget() -> None:
    """In a forked child, where the thread is not."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
