"""Helpers for users: run coroutines from plain code, many at once, and sort agents' addresses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import anyio

from creamas_sc.errors import misses_asyncio
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
    "sort_by_number",
    "split_addrs",
    "wait_tasks",
]

T = TypeVar("T")


@runtime_checkable
class _OfAsyncio(Protocol):
    """A task or future of asyncio, which is not imported to find out."""

    def get_loop(self) -> Any: ...


def run(task: Any = None, loop: Any = None, *, until: Any = None) -> Any:
    """Run a coroutine on the background loop and block until it is done.

    Works in a plain script, in a notebook cell and under any running loop, except a loop on which
    environments live.

    Args:
        task: The coroutine, or another awaitable. None runs until Ctrl-C.
        loop: An asyncio loop, not running, on which to run the task instead; for tasks and futures
            of asyncio it is their own.
        until: The same as ``task``; aiomas calls it so.

    Returns:
        What the coroutine returns.

    Raises:
        TypeError: ``task`` cannot be awaited, or ``loop`` is no loop.
        RuntimeError: Called on a loop on which environments live, which it would block: await the
            task there.
    """
    if until is not None:
        if task is not None:
            raise TypeError("run() takes task or until, which mean the same, not both")
        task = until
    if task is not None and not inspect.isawaitable(task):
        raise TypeError(
            f"run() needs a coroutine, not {task!r}: maybe it was returned by a sync method, which "
            "needs no run()"
        )
    if loop is None and isinstance(task, _OfAsyncio):
        loop = task.get_loop()
    coroutine = task
    if loop is None and not inspect.iscoroutine(task):
        coroutine = anyio.sleep_forever() if task is None else _result_of(task)
    try:
        return _run_blocking(coroutine, loop)
    finally:
        if inspect.iscoroutine(coroutine) and _never_began(coroutine):
            coroutine.close()  # avoid a "never awaited" warning as well


def _never_began(coroutine: Any) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _run_blocking(coroutine: Any, asyncio_loop: Any) -> Any:
    # Imported here: the client is installed without trio.
    from creamas_sc.runtime.class_loading import end_script_load
    from creamas_sc.runtime.event_loop import background_loop, loop_of_thread

    end_script_load()
    home = loop_of_thread()
    if asyncio_loop is None or home is not None:
        try:
            return (home or background_loop()).run_sync(coroutine)
        except Exception as error:
            if misses_asyncio(error):
                error.add_note("run() uses trio; asyncio needs run(task, asyncio.new_event_loop())")
            raise
    if not hasattr(asyncio_loop, "run_until_complete"):
        raise TypeError(f"loop must be an asyncio event loop or None, not {asyncio_loop!r}")
    if coroutine is None:
        return asyncio_loop.run_forever()
    return asyncio_loop.run_until_complete(coroutine)


def run_or_coro(task: Any, as_coro: bool, loop: Any = None) -> Any:
    """Return ``task`` itself if ``as_coro``, else the result of `run`."""
    return task if as_coro else run(task, loop)


def create_tasks(
    task_coro: Callable[..., Awaitable[Any]],
    addrs: Iterable[str],
    *args: Any,
    flatten: bool = True,
    **kwargs: Any,
) -> Coroutine[Any, Any, list[Any]]:
    """Return a coroutine that awaits ``task_coro(addr, *args, **kwargs)`` for all addresses.

    They run concurrently; nothing starts before the coroutine is awaited. For example, in a
    subclass of MultiEnvironment::

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
    return _gathered(lambda addr: task_coro(addr, *args, **kwargs), [*addrs], flatten)


async def wait_tasks(tasks: Iterable[Awaitable[Any]], flatten: bool = True) -> list[Any]:
    """Await all ``tasks`` concurrently; results and errors are those of `create_tasks`."""
    return await _gathered(_result_of, [*tasks], flatten)


async def _gathered(
    work: Callable[[Any], Awaitable[Any]], items: Sequence[Any], flatten: bool
) -> list[Any]:
    results = await gather(work, items)
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


def sort_by_number(env: Any, addrs: Iterable[str]) -> list[str]:
    """Sort addresses of agents by their `number`, the place in the order of spawning.

    Args:
        env: Their environment; if it has no ``get_numbers``, they are sorted by `sort_addrs`.
    """
    if not hasattr(env, "get_numbers"):
        return sort_addrs(addrs)
    places = {addr: place for place, addr in enumerate(env.get_numbers())}
    return sorted(addrs, key=lambda addr: places.get(addr, len(places)))


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
