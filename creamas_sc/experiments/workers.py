"""Worker processes, each of which takes one run at a time.

A thread here waits for each of them. A worker that ends is replaced, and only the run that it had
is lost.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

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
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self.stopping = False

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call a function of `creamas_sc.experiments.worker`."""
        return self._threads.submit(self._call, function.__name__, args)

    def _call(self, name: str, args: tuple[Any, ...]) -> Any:
        with self._lock:
            if self.stopping:
                raise WorkerLost("it was stopped")
            worker = self._idle.pop() if self._idle else _Worker(self.n)
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


class _Worker:
    """One process; its calls come from one thread at a time."""

    def __init__(self, workers: int) -> None:
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
        script = MainScript.of_this_process() or MainScript("", None, ())
        self._send({"path": sys.path, "script": script})

    def call(self, name: str, args: tuple[Any, ...]) -> Any:
        """Have it call a function; return what that returns.

        Raises:
            LoadError: It raised an error.
            WorkerLost: The process has ended.
        """
        self._send({"call": name, "args": args})
        line = self._answers.readline()
        if not line.endswith("\n"):
            code = self._process.wait()
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise WorkerLost(f"the process of the run ended {how}")
        answer = json.loads(line)
        if "error" in answer:
            raise LoadError(answer["error"])
        return answer["value"]

    def _send(self, request: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            print(json.dumps(request), file=self._requests, flush=True)

    def kill(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close(self) -> None:
        """End it, if it has not ended, by the end of its requests."""
        with suppress(BrokenPipeError):
            self._requests.close()
        self._process.wait()
        self._answers.close()
