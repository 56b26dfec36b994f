"""Where a process's code is just now: asked for by a signal, answered into a file in memory.

::

    who asks: `ask`                            the process: in `answering`
    finds the memory file among the            opened that file as it started
    process's descriptors, sends SIGURG  --->  faulthandler, in C: adds the main thread's stack,
                                               even while C code holds the interpreter
    reads on until the report is there,        the handler, between two instructions of the main
    or the time is up                    <---  thread, even in a loop that never awaits: adds the
                                               report

So neither the process's event loop, nor its connections, nor another process is needed, and the
answer of a process that is stuck is as good as any. The kernel ignores SIGURG where nothing has
asked for it, so a process that is only starting is not harmed. One that is stopped is not asked.

What it costs: the handler's time, which its report bounds. Python goes on with a system call that
the signal interrupts.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

from creamas_sc.runtime.process_load import load_of

SIGNAL = signal.SIGURG
FILE_NAME = "creamas-stacks"
# A report is between these; JSON and the texts of faulthandler have neither.
BEGIN, END = b"\x02", b"\x03"
# The file is emptied before it gets more than this; a report has less.
MAX_FILE_BYTES = 4 << 20
MAX_REPORT_BYTES = 1 << 20
POLL_SECONDS = 0.01

# Makes a report of plain values; gets the frame that the main thread is in.
Reporter = Callable[[FrameType | None], dict[str, Any]]


@contextmanager
def answering(report: Reporter) -> Iterator[None]:
    """Answer in the block those who ask where this process's code is.

    Nobody is answered outside of the main thread, which alone can handle signals, and where no
    descriptor is left.
    """
    fd = None
    if threading.current_thread() is threading.main_thread():
        with suppress(OSError):
            fd = os.memfd_create(FILE_NAME)
    if fd is None:
        yield
        return
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)

    def answer(number: int, frame: FrameType | None) -> None:
        _write(fd, _encoded(report, frame))
        signal.siginterrupt(SIGNAL, False)  # faulthandler has undone it

    before = signal.signal(SIGNAL, answer)
    faulthandler.register(SIGNAL, fd, all_threads=False, chain=True)
    signal.siginterrupt(SIGNAL, False)
    try:
        yield
    finally:
        faulthandler.unregister(SIGNAL)
        signal.signal(SIGNAL, before)
        os.close(fd)


def _encoded(report: Reporter, frame: FrameType | None) -> bytes:
    """The report; nothing that goes wrong in it may reach the code that the signal interrupted."""
    try:
        text = json.dumps(report(frame)).encode()
        if len(text) <= MAX_REPORT_BYTES:
            return text
        problem = f"the report of {len(text):,} bytes is too large"
    except Exception as error:
        problem = f"the report failed: {type(error).__name__}: {error}"
    return json.dumps({"problem": problem}).encode()


def _write(fd: int, report: bytes) -> None:
    with suppress(OSError):  # no memory: who asks sees that there is no answer
        if os.fstat(fd).st_size > MAX_FILE_BYTES:
            os.ftruncate(fd, 0)
        os.write(fd, BEGIN + report + END)


class Answer(NamedTuple):
    """What a process has answered.

    Attributes:
        state: Of the process, as `load_of` has it.
        report: Its report; None if it made none in time.
        main_thread: The lines of faulthandler, if there is no report.
        problem: Why there is no report, or less than a whole one.
    """

    state: str
    report: dict[str, Any] | None
    main_thread: tuple[str, ...] = ()
    problem: str = ""


def ask(pids: Sequence[int], seconds: float) -> list[Answer]:
    """Ask processes of this user and machine where their code is, all at once.

    Args:
        seconds: How long the slowest may take.
    """
    give_up_at = time.monotonic() + seconds
    questions = [_Question(pid) for pid in pids]
    try:
        while not all(question.look() for question in questions):
            if time.monotonic() > give_up_at:
                break
            time.sleep(POLL_SECONDS)
        return [question.answer(seconds) for question in questions]
    finally:
        for question in questions:
            question.close()


class _Question:
    """A process that was asked, and what it has answered so far."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._data = b""
        self._report: dict[str, Any] | None = None
        self._problem = ""
        self._fd: int | None = None
        self.state = load_of(pid)["state"]
        if self.state in ("ended", "stopped"):
            return
        try:
            self._fd = _open_file(pid)
            if self._fd is not None:
                self._start = os.fstat(self._fd).st_size
                os.kill(pid, SIGNAL)
        except OSError as error:
            self._problem = f"it cannot be asked: {error.strerror}"

    def look(self) -> bool:
        """Read what has come; whether nothing more is to be waited for."""
        if self._fd is None or self._report is not None or self._problem:
            return True
        if os.fstat(self._fd).st_size < self._start:  # it was emptied
            self._start = 0
        self._data = os.pread(self._fd, MAX_FILE_BYTES + MAX_REPORT_BYTES, self._start)
        _, begun, rest = self._data.partition(BEGIN)
        text, ended, _ = rest.partition(END)
        if begun and ended:
            self._report = json.loads(text)
        return bool(ended)

    def answer(self, seconds: float) -> Answer:
        """What it has answered, after so many seconds."""
        self.look()  # it may have come last
        state, report = load_of(self._pid)["state"], self._report
        if report is not None:
            return Answer(state, report, (), report.get("problem", ""))
        lines = self._data.partition(BEGIN)[0].decode(errors="replace").splitlines()
        return Answer(state, None, tuple(filter(None, lines)), self._problem or self._why(state))

    def _why(self, state: str) -> str:
        if state == "stopped":
            return "a signal has stopped it (SIGSTOP): `kill -CONT` lets it go on"
        if state == "ended":
            return "it has ended"
        if state == "waiting for a disk":
            return "the kernel does not let it go on: it waits for a disk, or a folder of a network"
        if self._fd is None:
            return "it does not answer: it is only starting, or had no descriptor left for that"
        return "its main thread is in code that is not Python, and comes back to none"

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


def _open_file(pid: int) -> int | None:
    """Open the file in memory of a process; None if it has none."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with suppress(OSError):  # closed meanwhile
            if os.readlink(f"{folder}/{name}").startswith(f"/memfd:{FILE_NAME} "):
                return os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    return None
