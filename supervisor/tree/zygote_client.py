"""The supervisor's side of the zygote: ask for a process, learn of its end by pidfd."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import trio

from creamas_sc.rpc.fd_passing import receive_descriptors, send_descriptors
from supervisor.timeouts import FORK_SECONDS, KILL_SECONDS, REAPED_SECONDS, STATUS_SECONDS
from supervisor.tree import linux

_MESSAGE_BYTES = 1 << 14


def describe_end(exit_code: int | None, signal: int | None) -> str:
    """How a process ended, for a message."""
    if signal is not None:
        known = signal in set(Signals)  # the real-time ones have no names
        return f"was killed by {Signals(signal).name if known else signal}"
    if exit_code is not None:
        return f"exited with code {exit_code}"
    return "ended, how is unknown"


class Process:
    """A child of the zygote.

    Attributes:
        exited: Set as soon as the process is over (and, within a bound, its status known).
        status: Its wait status; None while it runs, and where nobody could tell.
    """

    def __init__(self, name: str, pid: int, pidfd: int) -> None:
        self.name = name
        self.pid = pid
        self.exited = trio.Event()
        self.status: int | None = None
        self._pidfd: int | None = pidfd
        self._told = trio.Event()

    @property
    def exit_code(self) -> int | None:
        """What it passed to exit; None where a signal ended it, or unknown."""
        known = self.status is not None and os.WIFEXITED(self.status)
        return os.WEXITSTATUS(self.status or 0) if known else None

    @property
    def signal(self) -> int | None:
        """The signal that ended it; None where it exited, or unknown."""
        known = self.status is not None and os.WIFSIGNALED(self.status)
        return os.WTERMSIG(self.status or 0) if known else None

    def describe_end(self) -> str:
        """How it ended, for a message."""
        return describe_end(self.exit_code, self.signal)

    def send_signal(self, number: Signals) -> None:
        """Signal it, unless it is over; never another process that has its pid."""
        if self._pidfd is not None:
            linux.kill_pidfd(self._pidfd, number)

    def terminate(self) -> None:
        """Send SIGTERM (tractor calls this where its own cancellation fails)."""
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(SIGKILL)

    def poll(self) -> int | None:
        """None while it runs, in the manner of `subprocess.Popen`."""
        return (self.status or 0) if self.exited.is_set() else None

    def tell_status(self, status: int) -> None:
        """Take the zygote's word of how it ended."""
        self.status = status
        self._told.set()

    async def watch(self) -> None:
        """Wait for the end, and let go of the pidfd."""
        assert self._pidfd is not None
        try:
            await trio.lowlevel.wait_readable(self._pidfd)
            with trio.move_on_after(STATUS_SECONDS):
                await self._told.wait()
            if self.status is None:  # the zygote is stopped: the process is still unreaped
                self.status = linux.zombie_status(self.pid)
            if self.status is None:  # or many have ended, and the word of this one is on its way
                with trio.move_on_after(REAPED_SECONDS):
                    await self._told.wait()
        finally:
            if linux.has_ended(self._pidfd):
                self.exited.set()
            trio.lowlevel.notify_closing(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


class Zygote:
    """The supervisor's end of the socket to the zygote.

    Attributes:
        script_gone: Set when the script's process is over.
    """

    def __init__(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        self.script_gone = trio.Event()
        self._sock = sock
        self._nursery = nursery
        self._serials = itertools.count(1)
        self._sending = trio.Lock()
        self._waiting: dict[int, _Answer] = {}
        self._running: dict[int, Process] = {}

    async def fork(self, name: str, uid: str, fd: int, inherit: Sequence[int] = ()) -> Process:
        """Have an actor forked that talks tractor over ``fd``; its end is watched from then on.

        Args:
            inherit: What else it gets copies of, for its entry.

        Raises:
            OSError: The system refused another process.
            TimeoutError: The zygote did not answer; it is stopped.
        """
        answer = _Answer(name)
        try:
            await self._request(answer, {"name": name, "uid": uid}, [fd, *inherit])
            with trio.fail_after(FORK_SECONDS):
                await answer.come.wait()
        except trio.TooSlowError:
            answer.abandon()
            raise TimeoutError(f"the zygote did not answer in {FORK_SECONDS:g} s") from None
        except BaseException:
            await self._give_up(answer)
            raise
        if answer.process is None:
            raise OSError(errno.EAGAIN, f"no process for {name}: {answer.error}")
        return answer.process

    async def _give_up(self, answer: _Answer) -> None:
        """See the process end that was asked for, unless the zygote is stopped."""
        answer.abandon()
        if answer not in self._waiting.values() and answer.process is None:
            return  # it was not sent, or there is none
        with trio.move_on_after(KILL_SECONDS) as scope:
            scope.shield = True
            await answer.come.wait()
            if answer.process is not None:
                await answer.process.exited.wait()

    async def _request(self, answer: _Answer, order: dict[str, Any], fds: Sequence[int]) -> None:
        """Send a request to fork, after those of others: trio lets one task send at a time."""
        serial = next(self._serials)
        request = json.dumps({"serial": serial, **order, "fds": len(fds)}).encode()
        async with self._sending:
            self._waiting[serial] = answer
            try:
                with trio.fail_after(FORK_SECONDS):
                    await send_descriptors(self._sock, request, fds)
            except BaseException:
                del self._waiting[serial]  # it was not sent: nobody answers it
                raise

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
                    process.tell_status(message["status"])
            elif "gone" in message:
                self.script_gone.set()
            else:
                self._take_answer(message, descriptors)

    def _take_answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        answer = self._waiting.pop(message["serial"])
        if "pid" in message and not descriptors:
            # It ends by itself, as the socket it talks over is given up.
            answer.error = os.strerror(errno.EMFILE)
        elif "pid" in message:
            (pidfd,) = descriptors
            process = Process(answer.name, message["pid"], pidfd)
            self._running[process.pid] = process
            self._nursery.start_soon(process.watch)
            answer.take(process)
        else:
            answer.error = message["error"]
        answer.come.set()


class _Answer:
    """A request to fork under way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.come = trio.Event()
        self.process: Process | None = None
        self.error = ""
        self._abandoned = False

    def take(self, process: Process) -> None:
        self.process = process
        if self._abandoned:
            process.send_signal(SIGKILL)

    def abandon(self) -> None:
        """Nobody waits any longer: what has come or still comes is killed."""
        self._abandoned = True
        if self.process is not None:
            self.process.send_signal(SIGKILL)


@asynccontextmanager
async def open_zygote(sock: socket.socket) -> AsyncIterator[Zygote]:
    """Speak with the zygote over ``sock`` (SEQPACKET) for the length of the block."""
    with trio.socket.from_stdlib_socket(sock) as ours:
        async with trio.open_nursery() as nursery:
            zygote = Zygote(ours, nursery)
            nursery.start_soon(zygote.read)
            yield zygote
            nursery.cancel_scope.cancel()
