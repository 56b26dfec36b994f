"""Worker processes, each of which takes one run at a time.

A thread here waits for each of them. A worker that ends is replaced, and only the run that it had
is lost.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NamedTuple

from creamas_sc.errors import CreamasError, LoadError
from creamas_sc.runtime.main_script import MainScript
from creamas_sc.supervisor_client.launcher import THREADS, python_command

# How long runs may take to end in order, once they are to.
STOP_SECONDS: Final = 10.0


class WorkerLost(CreamasError):
    """The process that took a run has ended."""


class Workers:
    """At most ``n`` worker processes, started as they are needed; an executor, with `submit`.

    Attributes:
        n: As given.
        stopping: Whether `stop` was called.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._threads = ThreadPoolExecutor(n, "creamas worker")
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._lock = threading.Lock()
        self.stopping = False

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call a function of `creamas_sc.experiments.worker`."""
        return self._threads.submit(self._call, function.__name__, args)

    def _call(self, name: str, args: tuple[Any, ...]) -> Any:
        with self._lock:
            if self.stopping:
                raise WorkerLost("it was stopped")
            worker = self._idle.pop() if self._idle else Worker(self.n, Caller.here())
            self._all.add(worker)
        try:
            value = worker.call(name, args)
        except WorkerLost:
            with self._lock:
                self._all.discard(worker)
            worker.close()
            raise
        with self._lock:
            self._idle.append(worker)
        return value

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Interrupt what runs, and wait until it has ended, so long at most; then kill it."""
        with self._lock:
            self.stopping = True
            workers = list(self._all)
        for worker in workers:
            worker.kill(signal.SIGINT)

        def kill() -> None:
            for worker in workers:
                worker.kill(signal.SIGKILL)

        watch = threading.Timer(seconds, kill)
        watch.start()
        try:
            self._threads.shutdown(cancel_futures=True)
        except BaseException:  # Ctrl-C again
            kill()
            raise
        finally:
            watch.cancel()

    def close(self) -> None:
        """End all workers; they have nothing to do."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.close()


class Caller(NamedTuple):
    """The process that runs an experiment, as far as its workers have to know it.

    Attributes:
        path: Its ``sys.path``.
        script: None for a notebook, say.
        folder: In which it works.
    """

    path: list[str]
    script: MainScript | None
    folder: str

    @classmethod
    def here(cls) -> Caller:
        """This process."""
        try:
            folder = os.getcwd()
        except FileNotFoundError:  # it was removed
            folder = ""
        return cls(list(sys.path), MainScript.of_this_process(), folder)


class Worker:
    """One process; its calls come from one thread at a time.

    Args:
        workers: How many share the cores of this machine.
        caller: It works in that one's folder, if this machine has it.
    """

    def __init__(self, workers: int, caller: Caller) -> None:
        requests, write = os.pipe()
        read, answers = os.pipe()
        threads = max(len(os.sched_getaffinity(0)) // workers, 1)
        command = [*python_command(), "-m", "creamas_sc.experiments.worker"]
        # A Python that starts would print a long error; the worker takes the signal once it is up.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [*command, str(requests), str(answers)],
                stdin=subprocess.DEVNULL,
                pass_fds=(requests, answers),
                process_group=0,
                cwd=caller.folder if os.path.isdir(caller.folder) else None,
                env={THREADS: str(threads), **os.environ},
            )
        except BaseException:
            os.close(write)
            os.close(read)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(requests)
            os.close(answers)
        self._requests = open(write, "w", encoding="utf-8")
        self._answers = open(read, encoding="utf-8")
        self._print({"path": caller.path, "script": caller.script or MainScript("", None, ())})

    def call(self, name: str, args: tuple[Any, ...]) -> Any:
        """`send` and `answer`."""
        self.send(name, args)
        return self.answer()

    def send(self, name: str, args: tuple[Any, ...]) -> None:
        """Have it call a function."""
        self._print({"call": name, "args": args})

    def answers(self, seconds: float) -> bool:
        """Wait so long at most until `answer` need not wait; return whether that is so."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def answer(self) -> Any:
        """Return what the function returned.

        Raises:
            LoadError: It raised an error.
            WorkerLost: The process has ended.
        """
        line = self._answers.readline()
        if not line.endswith("\n"):
            code = self._process.wait()
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise WorkerLost(f"the process of the run ended {how}")
        answer = json.loads(line)
        if "error" in answer:
            raise LoadError(answer["error"])
        return answer["value"]

    def _print(self, request: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            print(json.dumps(request), file=self._requests, flush=True)

    def kill(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close(self, seconds: float | None = None) -> None:
        """End it by the end of its requests, and what it runs with it; kill it after so long."""
        with suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGKILL)
            self._process.wait()
        self._answers.close()
