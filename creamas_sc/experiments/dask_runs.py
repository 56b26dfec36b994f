"""Takes the runs of an experiment on a cluster of dask's: a task for each, in a process of its own.

The process is a child of the worker that has the task, so that a run which crashes costs no other
run its worker, can be interrupted, and shares no process with dask's event loop. It ends with the
worker, whatever ends that; dask then gives the task to another one. Where the scheduler no longer
wants the task, as after Ctrl-C, the process is ended within `WATCH_SECONDS`.

dask is imported in functions of its workers only.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypedDict

from creamas_sc.errors import BadValue, CreamasError, LoadError
from creamas_sc.experiments.ledger import FILE
from creamas_sc.experiments.workers import STOP_SECONDS, Caller, Worker, WorkerLost

# How long a run may go on that is no longer wanted, before it is ended.
WATCH_SECONDS: Final = 0.5


class TaskOrder(TypedDict):
    """What a task does.

    Attributes:
        caller: Of the process that runs the experiment.
        folder: Of the experiment.
        call, args: A function of `creamas_sc.experiments.worker`.
    """

    caller: Caller
    folder: str
    call: str
    args: tuple[Any, ...]


class TaskAnswer(TypedDict):
    """What came of it; an error is no error of the task, which dask would show at length.

    Attributes:
        value: What the function returned.
        load_error, lost: Of a `LoadError` and a `WorkerLost`; else empty.
    """

    value: Any
    load_error: str
    lost: str


class DaskRuns:
    """An executor, with `submit`, on a client of dask's.

    Args:
        client: In a thread of its own, as a plain ``Client(...)`` is.
        folder: Of the experiment.

    Raises:
        BadValue: The client is one for coroutines.
    """

    why_stopping = "the dask cluster was lost: run the experiment again, what is done is kept"

    def __init__(self, client: Any, folder: Path) -> None:
        if client.asynchronous:
            raise BadValue("executor: a dask client with asynchronous=True cannot be waited for")
        self._client = client
        self._folder = str(folder.absolute())
        self._caller = Caller.here()

    @property
    def stopping(self) -> bool:
        """Whether the cluster takes no more calls, and has lost those that it had."""
        return bool(self._client.status != "running")

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call a function of `creamas_sc.experiments.worker`.

        To cancel the future ends the call, wherever it is.
        """
        order: TaskOrder = {
            "caller": self._caller,
            "folder": self._folder,
            "call": function.__name__,
            "args": args,
        }
        loop = self._client.loop.asyncio_loop
        return asyncio.run_coroutine_threadsafe(self._value(order), loop)

    async def _value(self, order: TaskOrder) -> Any:
        # Not pure: of two equal calls, each is made.
        future = self._client.submit(call_apart, order, pure=False)
        try:
            answer = await future
        except Exception:
            if self.stopping:
                raise CreamasError(self.why_stopping) from None
            raise
        finally:
            future.release()  # the scheduler forgets it, and its worker what came of it
        if answer["load_error"]:
            raise LoadError(answer["load_error"])
        if answer["lost"]:
            raise WorkerLost(answer["lost"])
        return answer["value"]


def call_apart(order: TaskOrder) -> TaskAnswer:
    """Call a function in a process of its own, in a worker of dask's."""
    answer: TaskAnswer = {"value": None, "load_error": "", "lost": ""}
    try:
        answer["value"] = _call(order)
    except LoadError as error:
        answer["load_error"] = str(error)
    except WorkerLost as error:
        answer["lost"] = str(error)
    return answer


def _call(order: TaskOrder) -> Any:
    from distributed import get_worker
    from distributed.worker import WORKER_ANY_RUNNING

    if not (Path(order["folder"]) / FILE).is_file():
        raise LoadError(
            f"the experiment's folder {order['folder']} is not on {socket.gethostname()}, where a "
            "worker of the cluster is: choose one that all of its machines share"
        )
    dask_worker = get_worker()
    task = dask_worker.get_current_task()

    def wanted() -> bool:
        state = dask_worker.state.tasks.get(task)
        executing = state is not None and state.state == "executing"
        return executing and dask_worker.status in WORKER_ANY_RUNNING

    worker = Worker(dask_worker.state.nthreads, order["caller"])
    try:
        worker.send(order["call"], order["args"])
        while not worker.answers(WATCH_SECONDS):
            if not wanted():
                raise WorkerLost("it was stopped")
        return worker.answer()
    finally:
        worker.close(STOP_SECONDS)
