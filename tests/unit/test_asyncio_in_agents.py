"""asyncio where agents run: each way in which it fails is explained, and the way out works."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio.to_thread
import pytest
import sniffio
import trio

from creamas_sc import run, run_asyncio
from creamas_sc.errors import AgentError, misses_asyncio
from creamas_sc.runtime import asyncio_thread

Case = Callable[[], Coroutine[Any, Any, Any]]
EXPLAINED = (
    "(agents run under trio: use anyio or trio here, not asyncio, or give asyncio a thread: "
    "await creamas_sc.run_asyncio(function, ...))"
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


# ---- run_asyncio


@pytest.fixture(autouse=True, scope="module")
def started() -> None:
    """The thread and its loop stay as long as the process does."""
    trio.run(run_asyncio, child)


async def test_asyncio_works_in_its_thread() -> None:
    async def everything(number: int) -> Any:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            task = group.create_task(child())
        await asyncio.wait_for(asyncio.sleep(0), 1)
        gathered = await asyncio.gather(child(), asyncio.to_thread(int))
        return number, task.result(), gathered, sniffio.current_async_library()

    expected = "done", ["done", 0], "asyncio"
    assert await run_asyncio(everything, 3) == (3, *expected)
    loop = await run_asyncio(running_loop)
    assert await run_asyncio(running_loop) is loop, "all calls share one"
    assert sniffio.current_async_library() == "trio"
    assert await anyio.to_thread.run_sync(trio.run, run_asyncio, running_loop) is loop


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def test_many_calls_are_under_way_at_once() -> None:
    everybody = asyncio.Event()
    waiting = 0

    async def meet() -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 100:
            everybody.set()
        await everybody.wait()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(run_asyncio, meet)


async def test_a_cancelled_call_has_ended() -> None:
    ended = []

    async def endless() -> None:
        try:
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
        finally:
            await asyncio.sleep(0.01)
            ended.append(len(asyncio.all_tasks()))

    with trio.move_on_after(0.05) as scope:
        await run_asyncio(endless)
    assert scope.cancelled_caught
    assert ended == [1], "it itself, and no task that it has awaited"


async def test_a_call_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio_thread, "INTERRUPT_SECONDS", 0.01)
    stubborn_ended = threading.Event()

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(0.1)
        stubborn_ended.set()

    with trio.move_on_after(0.05) as scope:
        await run_asyncio(stubborn)
    assert scope.cancelled_caught
    assert not stubborn_ended.is_set()
    assert await trio.to_thread.run_sync(stubborn_ended.wait, 5)


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), TimeoutError()])
async def test_errors_are_the_callers(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await run_asyncio(fail)
    assert caught.value is error
    assert await run_asyncio(child) == "done", "the loop goes on"


async def test_what_is_no_asyncio_function() -> None:
    with pytest.raises(TypeError, match="await"):
        await run_asyncio(int)  # type: ignore[arg-type]

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(RuntimeError, match="was cancelled under asyncio"):
        await run_asyncio(cancels_itself)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_a_task_that_exits_or_stops_the_loop_ends_no_other_call(
    kind: type[BaseException],
) -> None:
    async def leave() -> None:
        raise kind

    async def careless() -> str:
        task = asyncio.create_task(leave())
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        assert isinstance(task.exception(), kind)
        return "went on"

    with trio.fail_after(10):
        assert await run_asyncio(careless) == "went on"


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    trio.run(run_asyncio, child)
    child_pid = os.fork()
    if not child_pid:
        try:
            os._exit(0 if trio.run(run_asyncio, child) == "done" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child_pid, 0)[1]) == 0
