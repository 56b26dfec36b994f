"""Coroutines: many at once, one that retries, and one driven by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from types import coroutine
from typing import Any, TypeVar

import anyio

from creamas_sc.errors import AgentErrors, first_error

T = TypeVar("T")
Item = TypeVar("Item")


async def gather(work: Callable[[Item], Awaitable[T]], items: Sequence[Item]) -> list[T]:
    """Await ``work(item)`` for all items concurrently; the first error cancels the rest.

    The last one runs in the calling task.

    Returns:
        The results in order.

    Raises:
        Exception: One failed: its exception.
        ExceptionGroup: Several failed before they could be cancelled.
    """
    results: dict[int, T] = {}
    errors: list[Exception] = []

    async def run(position: int, item: Item) -> None:
        try:
            results[position] = await work(item)
        except Exception as error:  # raised below, outside the task group's own group
            errors.append(error)
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for position, item in enumerate(items[:-1]):
                group.start_soon(run, position, item)
            if items:
                await run(len(items) - 1, items[-1])
    except BaseExceptionGroup as raised:
        if len(raised.exceptions) > 1:
            raise
        raise raised.exceptions[0] from None  # a KeyboardInterrupt, say
    if len(errors) > 1:
        raise ExceptionGroup(f"{len(errors)} of {len(items)} tasks failed", errors)
    if errors:
        raise errors[0]
    return [results[position] for position in range(len(items))]


async def at_once(work: Callable[[Item], Awaitable[T]], items: Sequence[Item]) -> list[T]:
    """As `gather`, but where several fail, the first error is raised, with notes of the others."""
    try:
        return await gather(work, items)
    except AgentErrors:
        raise
    except ExceptionGroup as group:
        raise first_error(group.exceptions) from None


def backoff() -> Iterator[float]:
    """Yield pauses between attempts, in seconds: each twice the last, up to 0.2 s; no end."""
    pause = 0.01
    while True:
        yield pause
        pause = min(2 * pause, 0.2)


@coroutine
def watch(
    work: Coroutine[Any, Any, None], suspending: Callable[[Any], bool]
) -> Generator[Any, Any, None]:
    """Drive ``work`` as ``await`` would, and call ``suspending`` before it suspends.

    ``suspending`` receives what ``work`` yields to the event loop, each time until it returns
    False.
    """
    try:
        trap = work.send(None)
        watched = True
        while True:
            watched = watched and suspending(trap)
            try:
                value = yield trap
            except BaseException as error:  # thrown in by the scheduler, for the work to handle
                trap = work.throw(error)
            else:
                trap = work.send(value)
    except StopIteration:
        return
