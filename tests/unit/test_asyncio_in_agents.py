"""asyncio where agents run: each way in which it fails is explained, and the way out works."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio

from creamas_sc import run
from creamas_sc.errors import AgentError, misses_asyncio

Case = Callable[[], Coroutine[Any, Any, Any]]
EXPLAINED = (
    "(agents run under trio: use anyio or trio here, not asyncio, or give asyncio a thread: "
    "await trio.to_thread.run_sync(asyncio.run, coroutine))"
)
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


async def child() -> str:
    await asyncio.sleep(0.001)
    return "done"


def future() -> asyncio.Future[Any]:
    return asyncio.Future(loop=LOOP)


LOOP: Any = None


@pytest.fixture(autouse=True)
def loop() -> Any:
    """One that does not run."""
    global LOOP
    LOOP = asyncio.new_event_loop()
    yield
    LOOP.close()


@case
async def sleep() -> None:
    await asyncio.sleep(1)


@case
async def sleep_zero() -> None:
    await asyncio.sleep(0)


@case
async def await_future() -> None:
    await future()


@case
async def gather() -> None:
    await asyncio.gather(future(), future())


@case
async def shield() -> None:
    await asyncio.shield(future())


@case
async def wait() -> None:
    await asyncio.wait([future()])


@case
async def create_task() -> None:
    coroutine = child()
    try:
        asyncio.create_task(coroutine)  # noqa: RUF006
    finally:
        coroutine.close()


@case
async def task_group() -> None:
    async with asyncio.TaskGroup():
        pass


@case
async def timeout() -> None:
    async with asyncio.timeout(1):
        await trio.lowlevel.checkpoint()


@case
async def wait_for() -> None:
    await asyncio.wait_for(future(), 1)


@case
async def queue() -> None:
    await asyncio.Queue[int]().get()


@case
async def queue_join() -> None:
    items = asyncio.Queue[int]()
    items.put_nowait(1)
    await items.join()


@case
async def lock() -> None:
    mutex = asyncio.Lock()
    await mutex.acquire()
    await mutex.acquire()


@case
async def event() -> None:
    await asyncio.Event().wait()


@case
async def semaphore() -> None:
    await asyncio.Semaphore(0).acquire()


@case
async def condition() -> None:
    changed = asyncio.Condition()
    async with changed:
        await changed.wait()


@case
async def barrier() -> None:
    await asyncio.Barrier(2).wait()


@case
async def to_thread() -> None:
    await asyncio.to_thread(int)


@case
async def get_running_loop() -> None:
    asyncio.get_running_loop()


@case
async def current_task() -> None:
    asyncio.current_task()


@case
async def open_connection() -> None:
    await asyncio.open_connection("localhost", 1)


@case
async def start_server() -> None:
    await asyncio.start_server(print, "localhost", 0)


@case
async def subprocess() -> None:
    await asyncio.create_subprocess_exec("true")


@case
async def wrap_future() -> None:
    await asyncio.wrap_future(concurrent.futures.Future(), loop=LOOP)


@pytest.mark.parametrize("name", CASES)
async def test_each_failure_is_explained(name: str) -> None:
    with trio.fail_after(5), pytest.raises(Exception) as caught:  # noqa: PT011
        await CASES[name]()
    assert AgentError.from_exception("tcp://h:1/1", caught.value).message.endswith(EXPLAINED)


async def test_a_thread_without_a_loop_is_explained_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        await trio.to_thread.run_sync(asyncio.StreamReader)
    assert misses_asyncio(caught.value)


async def test_the_way_out_works() -> None:
    assert await trio.to_thread.run_sync(asyncio.run, child()) == "done"


async def test_other_errors_are_not_blamed_on_asyncio() -> None:
    async def late() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)

    async def confused() -> None:
        coroutine = child()
        try:
            await asyncio.wait([coroutine])  # type: ignore[type-var]
        finally:
            coroutine.close()

    for failing in (late, confused):
        with pytest.raises((TimeoutError, TypeError)) as caught:
            await trio.to_thread.run_sync(asyncio.run, failing())
        assert not misses_asyncio(caught.value)
    for error in (RuntimeError("mine"), TypeError("None"), ValueError("no running event loop")):
        assert not misses_asyncio(error)
        assert AgentError.from_exception("a", error).message == str(error)


def test_run_says_how_to_have_asyncio() -> None:
    with pytest.raises(RuntimeError, match="no running event loop") as caught:
        run(child())
    assert caught.value.__notes__ == [
        "run() uses trio; asyncio needs run(task, asyncio.new_event_loop())"
    ]
    assert run(child(), LOOP) == "done"
