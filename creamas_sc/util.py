"""Small helpers: running coroutines from plain code, many at once, and agents' addresses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio

from creamas_sc.errors import AgentErrors, first_error
from creamas_sc.rpc.endpoint import split_address
from creamas_sc.rpc.exposed import expose
from creamas_sc.runtime.validation import check_text

__all__ = [
    "addrs2managers",
    "create_tasks",
    "expose",
    "get_manager",
    "run",
    "run_or_coro",
    "sanitize_agent_name",
    "sort_addrs",
    "split_addrs",
    "wait_tasks",
]

T = TypeVar("T")
Item = TypeVar("Item")


def run(task: Any = None, loop: Any = None) -> Any:
    """Run a coroutine on the home loop and block until it is done.

    Works in a plain script, in a notebook cell and under any running loop but the home loop itself.

    Args:
        task: The coroutine, or another awaitable that suits trio. None runs for ever, until Ctrl-C.
        loop: Must be None; it stands here for calls written for asyncio.

    Returns:
        What the coroutine returns.

    Raises:
        TypeError: ``task`` cannot be awaited, or a loop was given.
        RuntimeError: Called on a home loop, which it would block: await the task there.
    """
    if loop is not None:
        if inspect.iscoroutine(task):
            task.close()  # no warning that nobody awaited it, on top of the error
        raise TypeError(
            "creamas_sc has a loop of its own: call run(task) without loop, or await the task in "
            "your loop"
        )
    if task is not None and not inspect.isawaitable(task):
        raise TypeError(
            f"run() needs a coroutine, not {task!r}: the call that gave it may be a sync one, "
            "which needs no run()"
        )
    # Imported here: an installation without trio can attach to simulations, not run one.
    from creamas_sc.runtime.event_loop import run_coroutine

    if task is None:
        task = anyio.sleep_forever()
    return run_coroutine(task if inspect.iscoroutine(task) else _result_of(task))


def run_or_coro(task: Any, as_coro: bool, loop: Any = None) -> Any:
    """``task`` itself if ``as_coro``, else what `run` makes of it."""
    return task if as_coro else run(task, loop)


async def create_tasks(
    task_coro: Callable[..., Awaitable[Any]],
    addrs: Iterable[str],
    *args: Any,
    flatten: bool = True,
    **kwargs: Any,
) -> list[Any]:
    """Await ``task_coro(addr, *args, **kwargs)`` for all addresses at once.

    Nothing starts before the returned coroutine is awaited. For example, in a subclass of
    MultiEnvironment::

        async def count_artifacts(self):
            async def count(addr):
                manager = await self.env.connect(addr)
                return await manager.count_artifacts()

            return await create_tasks(count, self.addrs)

    Args:
        task_coro: Called with an address first.
        addrs: Addresses of agents or managers.
        flatten: Join the results into one list where all of them are lists, tuples, sets or other
            collections; strings, bytes and mappings are not taken apart.

    Returns:
        The results in the order of ``addrs``.

    Raises:
        Exception: One task failed: its exception, and the others were cancelled.
        ExceptionGroup: Several failed before they could be cancelled.
    """
    results = await _gather([partial(task_coro, addr, *args, **kwargs) for addr in addrs])
    return _flattened(results) if flatten else results


async def wait_tasks(tasks: Iterable[Awaitable[Any]], flatten: bool = True) -> list[Any]:
    """Await all ``tasks`` at once; results and errors are those of `create_tasks`."""
    results = await _gather([partial(_result_of, task) for task in tasks])
    return _flattened(results) if flatten else results


async def at_once(work: Callable[[Item], Awaitable[T]], items: Sequence[Item]) -> list[T]:
    """Await ``work(item)`` for all items; of errors of one moment, the first names the others."""
    try:
        return await _gather([partial(work, item) for item in items])
    except AgentErrors:
        raise
    except ExceptionGroup as group:
        raise first_error(group.exceptions) from None


async def _gather(starts: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    results: list[Any] = [None] * len(starts)
    errors: list[Exception] = []

    async def work(position: int, start: Callable[[], Awaitable[Any]]) -> None:
        try:
            results[position] = await start()
        except Exception as error:  # raised below, as itself
            errors.append(error)
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for position, start in enumerate(starts[:-1]):
                group.start_soon(work, position, start)
            if starts:  # the last needs no task of its own
                await work(len(starts) - 1, starts[-1])
    except BaseExceptionGroup as raised:
        if len(raised.exceptions) > 1:
            raise
        raise raised.exceptions[0] from None  # a KeyboardInterrupt, say
    if len(errors) > 1:
        raise ExceptionGroup(f"{len(errors)} of {len(starts)} tasks failed", errors)
    if errors:
        raise errors[0]
    return results


def _flattened(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, (str, bytes, Mapping)) or not isinstance(result, Iterable):
            return results
    return [item for result in results for item in result]


async def _result_of(task: Awaitable[T]) -> T:
    return await task


def sort_addrs(addrs: Iterable[str]) -> list[str]:
    """Addresses by host, then port, then agent number, the latter two as numbers.

    Raises:
        ValueError: One is no agent's address.
    """
    return sorted(addrs, key=split_address)


def split_addrs(addrs: Iterable[str]) -> dict[str, dict[int, list[str]]]:
    """Addresses by host and then by port: ``{host: {port: [addr, ...]}}``, order kept.

    Raises:
        ValueError: One is no agent's address.
    """
    hosts: dict[str, dict[int, list[str]]] = {}
    for addr in addrs:
        host, port, _ = split_address(addr)
        hosts.setdefault(host, {}).setdefault(port, []).append(addr)
    return hosts


def get_manager(addr: str) -> str:
    """Address of the manager of the agent's environment: the same with number 0.

    Raises:
        ValueError: ``addr`` is no agent's address.
    """
    check_text("addr", addr)
    base, _, number = addr.rpartition("/")
    if not number.isdecimal():
        raise ValueError(f"{addr!r} is no agent's address: expected 'tcp://host:port/number'")
    return f"{base}/0"


def addrs2managers(addrs: Iterable[str]) -> dict[str, list[str]]:
    """Addresses by the address of their environment's manager, order kept.

    Raises:
        ValueError: One is no agent's address.
    """
    managers: dict[str, list[str]] = {}
    for addr in addrs:
        managers.setdefault(get_manager(addr), []).append(addr)
    return managers


def sanitize_agent_name(name: str) -> str:
    """``name`` in a form that suits files and folders.

    What stands between ``:`` and ``/`` is joined by ``_``; a name of which nothing usable is left
    becomes ``_``.
    """
    joined = "_".join(part for part in re.split("[:/]", name) if part)
    return "_" if joined in ("", ".", "..") else joined
