"""The supervisor's side of the zygote: have it fork processes, and learn how they end.

Both speak over a SEQPACKET socket, one JSON object per packet. A request to fork carries the
descriptors that the child is to have; its answer carries the child's pidfd. Later the zygote
reports each child that it has reaped, with its wait status.

A process's end is seen in two ways, and the first one counts: the zygote's report, and the pidfd,
which becomes readable even while the zygote is stopped. Only the report has the exit status for
sure, so after the pidfd it is awaited for a moment; then /proc is asked, which knows the status of
a process that is not reaped yet.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import trio

from creamas_sc.rpc.fd_passing import receive_descriptors, send_descriptors
from supervisor.timeouts import (
    FORK_SECONDS,
    KILL_SECONDS,
    REAPED_SECONDS,
    STATUS_SECONDS,
    WAKE_SECONDS,
)
from supervisor.tree import linux

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 1 << 14


class Process:
    """A child of the zygote, from the request to fork it to its end.

    Args:
        inherit: Descriptors of which it gets copies, for its entry.

    Attributes:
        answered: Set when it was forked, or could not be: ``refusal`` then says why.
        abandoned: It is not wanted any more; to be killed once it was forked.
        pid: 0 before it is forked.
        exited: Set when the process is over, and its status is known or cannot be.
        status: Its wait status; None while it runs, and if it cannot be known.
        pidfd: None before it is forked, and after its end.
    """

    def __init__(self, name: str, inherit: Sequence[int] = ()) -> None:
        self.name = name
        self.inherit = inherit
        self.answered = trio.Event()
        self.refusal: str | None = None
        self.abandoned = False
        self.pid = 0
        self.exited = trio.Event()
        self.status: int | None = None
        self.pidfd: int | None = None

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else self.name

    @property
    def exit_code(self) -> int | None:
        """What it passed to exit; None if a signal ended it, or if it is unknown."""
        status = self.status
        return None if status is None or not os.WIFEXITED(status) else os.WEXITSTATUS(status)

    @property
    def signal(self) -> int | None:
        """The signal that ended it; None if it exited, or if it is unknown."""
        status = self.status
        return None if status is None or not os.WIFSIGNALED(status) else os.WTERMSIG(status)

    def terminate(self) -> None:
        """Send SIGTERM (tractor calls this if its own cancellation fails)."""
        self.kill(SIGTERM)

    def kill(self, number: Signals = SIGKILL) -> None:
        """Send a signal, unless the process is over; never to another one with the same pid."""
        if self.pidfd is not None:
            linux.kill_pidfd(self.pidfd, number)

    async def watch(self, pidfd: int) -> None:
        """Wait for the end, and close the pidfd."""
        try:
            await trio.lowlevel.wait_readable(pidfd)
            with trio.move_on_after(STATUS_SECONDS):
                await self.exited.wait()
            if self.status is None:  # the zygote is stopped: the process is still unreaped
                self.status = linux.zombie_status(self.pid)
            if self.status is None:  # or many have ended, and this one's report is on its way
                with trio.move_on_after(REAPED_SECONDS):
                    await self.exited.wait()
        finally:
            if linux.has_ended(pidfd):
                self.exited.set()
            trio.lowlevel.notify_closing(pidfd)
            os.close(pidfd)
            self.pidfd = None


class ZygoteClient:
    """The supervisor's end of the socket to the zygote.

    Attributes:
        script_gone: Set when the script's process is over.
    """

    def __init__(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        self.script_gone = trio.Event()
        self._sock = sock
        self._nursery = nursery
        self._serials = itertools.count(1)
        self._sending = trio.Lock()  # trio lets one task send at a time
        self._waiting: dict[int, Process] = {}  # requests that were not answered yet
        self._running: dict[int, Process] = {}

    async def fork(self, process: Process, uid: str, fd: int) -> None:
        """Have an actor's process forked that talks tractor over ``fd``, and watch it.

        Cancelled, it returns when the process is gone.

        Raises:
            OSError: The system refused another process.
            TimeoutError: The zygote did not answer, although it was woken.
        """
        fds, serial = [fd, *process.inherit], next(self._serials)
        order = {"serial": serial, "name": process.name, "uid": uid, "fds": len(fds)}
        sent = False
        self._nursery.start_soon(self._keep_awake, process.answered)
        try:
            with trio.fail_after(FORK_SECONDS):
                async with self._sending:
                    self._waiting[serial] = process
                    await send_descriptors(self._sock, json.dumps(order).encode(), fds)
                    sent = True
                await process.answered.wait()
        except BaseException as error:
            if sent:
                process.abandoned = True
                process.kill()
            else:
                self._waiting.pop(serial, None)  # there will be no answer
            if isinstance(error, trio.TooSlowError):
                message = f"the zygote did not answer in {FORK_SECONDS:g} s"
                raise TimeoutError(message) from None
            with trio.move_on_after(KILL_SECONDS) as scope:
                scope.shield = True
                if sent:
                    await process.answered.wait()
                if process.pid:
                    await process.exited.wait()
            raise
        if process.refusal is not None:
            raise OSError(errno.EAGAIN, f"no process for {process.name}: {process.refusal}")

    async def _keep_awake(self, answered: trio.Event) -> None:
        """Wake the zygote, which is this process's parent, while an answer of it is awaited."""
        with trio.move_on_after(FORK_SECONDS):
            while not answered.is_set():
                with trio.move_on_after(WAKE_SECONDS):
                    await answered.wait()
                if not answered.is_set() and linux.wake(os.getppid()):
                    log.warning("the zygote, which forks all processes, was stopped: it was woken")

    async def read(self) -> None:
        """Take the zygote's messages until it is gone."""
        while True:
            data, descriptors = await receive_descriptors(self._sock, _MESSAGE_BYTES)
            if not data:
                return
            message = json.loads(data)
            if "ended" in message:
                process = self._running.pop(message["ended"], None)
                if process is not None:
                    process.status = message["status"]
                    process.exited.set()
            elif "gone" in message:
                self.script_gone.set()
            else:
                self._take_answer(message, descriptors)

    def _take_answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        process = self._waiting.pop(message["serial"])
        if "pid" not in message:
            process.refusal = message["error"]
        elif not descriptors:
            # No descriptor was free here. The process ends by itself, as its socket is closed.
            process.refusal = os.strerror(errno.EMFILE)
        else:
            process.pid, (process.pidfd,) = message["pid"], descriptors
            self._running[process.pid] = process
            self._nursery.start_soon(process.watch, process.pidfd)
            if process.abandoned:
                process.kill()
        process.answered.set()


@asynccontextmanager
async def open_zygote(sock: socket.socket) -> AsyncIterator[ZygoteClient]:
    """Speak with the zygote over ``sock`` (SEQPACKET) for the length of the block."""
    with trio.socket.from_stdlib_socket(sock) as ours:
        async with trio.open_nursery() as nursery:
            zygote = ZygoteClient(ours, nursery)
            nursery.start_soon(zygote.read)
            yield zygote
            nursery.cancel_scope.cancel()
