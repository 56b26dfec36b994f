"""Helpers for users: run coroutines from plain code, many at once, and sort agents' addresses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import anyio

from creamas_sc.rpc.addresses import base_url, split_address
from creamas_sc.rpc.exposed import expose
from creamas_sc.runtime.coroutines import gather

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


def run(task: Any = None, loop: Any = None) -> Any:
    """Run a coroutine on the background loop and block until it is done.

    Works in a plain script, in a notebook cell and under any running loop, except a loop on which
    environments live.

    Args:
        task: The coroutine, or another awaitable for trio. None runs until Ctrl-C.
        loop: Must be None; it is a parameter only because creamas has it.

    Returns:
        What the coroutine returns.

    Raises:
        TypeError: ``task`` cannot be awaited, or a loop was given.
        RuntimeError: Called on a loop on which environments live, which it would block: await the
            task there.
    """
    if loop is not None:
        if inspect.iscoroutine(task):
            task.close()  # avoid a "never awaited" warning as well
        raise TypeError(
            "creamas_sc runs its own event loop: call run(task) without loop, or await the task in "
            "your loop"
        )
    if task is not None and not inspect.isawaitable(task):
        raise TypeError(
            f"run() needs a coroutine, not {task!r}: maybe it was returned by a sync method, which "
            "needs no run()"
        )
    # Imported here: the client is installed without trio.
    from creamas_sc.runtime.class_loading import end_script_load
    from creamas_sc.runtime.event_loop import background_loop, loop_of_thread

    if task is None:
        task = anyio.sleep_forever()
    coroutine = task if inspect.iscoroutine(task) else _result_of(task)
    try:
        end_script_load()
        loop = loop_of_thread() or background_loop()
    except BaseException:  # the second load of a script ends here
        coroutine.close()
        raise
    return loop.run_sync(coroutine)


def run_or_coro(task: Any, as_coro: bool, loop: Any = None) -> Any:
    """Return ``task`` itself if ``as_coro``, else the result of `run`."""
    return task if as_coro else run(task, loop)


async def create_tasks(
    task_coro: Callable[..., Awaitable[Any]],
    addrs: Iterable[str],
    *args: Any,
    flatten: bool = True,
    **kwargs: Any,
) -> list[Any]:
    """Await ``task_coro(addr, *args, **kwargs)`` for all addresses concurrently.

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
        flatten: Join the results into one list if all of them are lists, tuples, sets or other
            collections, except strings, bytes and mappings.

    Returns:
        The results in the order of ``addrs``.

    Raises:
        Exception: One task failed: its exception, and the others were cancelled.
        ExceptionGroup: Several failed before they could be cancelled.
    """
    results = await gather(lambda addr: task_coro(addr, *args, **kwargs), [*addrs])
    return _flattened(results) if flatten else results


async def wait_tasks(tasks: Iterable[Awaitable[Any]], flatten: bool = True) -> list[Any]:
    """Await all ``tasks`` concurrently; results and errors are those of `create_tasks`."""
    results = await gather(_result_of, [*tasks])
    return _flattened(results) if flatten else results


def _flattened(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, (str, bytes, Mapping)) or not isinstance(result, Iterable):
            return results
    return [item for result in results for item in result]


async def _result_of(task: Awaitable[T]) -> T:
    return await task


def sort_addrs(addrs: Iterable[str]) -> list[str]:
    """Sort addresses by host, then port, then agent number, the latter two as numbers.

    Raises:
        ValueError: One of them is not an agent's address.
    """
    return sorted(addrs, key=split_address)


def split_addrs(addrs: Iterable[str]) -> dict[str, dict[int, list[str]]]:
    """Group addresses by host and then by port: ``{host: {port: [addr, ...]}}``, in order.

    Raises:
        ValueError: One of them is not an agent's address.
    """
    hosts: dict[str, dict[int, list[str]]] = {}
    for addr in addrs:
        host, port, _ = split_address(addr)
        hosts.setdefault(host, {}).setdefault(port, []).append(addr)
    return hosts


def get_manager(addr: str) -> str:
    """Return the address of the manager of the agent's environment: agent number 0.

    Raises:
        ValueError: ``addr`` is not an agent's address.
    """
    host, port, _ = split_address(addr)
    return f"{base_url(host, port)}0"


def addrs2managers(addrs: Iterable[str]) -> dict[str, list[str]]:
    """Group addresses by the address of their environment's manager, in order.

    Raises:
        ValueError: One of them is not an agent's address.
    """
    managers: dict[str, list[str]] = {}
    for addr in addrs:
        managers.setdefault(get_manager(addr), []).append(addr)
    return managers


def sanitize_agent_name(name: str) -> str:
    """Return ``name`` in a form that suits files and folders.

    Each ``:`` and ``/`` becomes ``_``, repeated ones and those at the ends are dropped; if nothing
    usable is left, the name is ``_``.
    """
    joined = "_".join(part for part in re.split("[:/]", name) if part)
    return "_" if joined in ("", ".", "..") else joined
