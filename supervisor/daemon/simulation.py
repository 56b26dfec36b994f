"""One simulation of a daemon: its host process, the host's slaves, and what is told of them.

The host inherits a SEQPACKET socket, over which it is handed connections (see
`creamas_sc.rpc.fd_passing`); the first is its own way to ask for slaves.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

import trio

from creamas_sc.errors import CallRefused, ConnectionLost, CreamasError, HostLost, StartError
from creamas_sc.rpc import fd_passing
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.log_setup import FILE_VARIABLE, SIMULATION_VARIABLE
from creamas_sc.wire.frames import FrameReader
from supervisor.actors.pool import Service
from supervisor.actors.slot import Told
from supervisor.actors.tractor_adapter import Tree
from supervisor.rpc_server import Method, MethodServer
from supervisor.texts import shorten
from supervisor.timeouts import DESCRIBE_SECONDS, GRACE_SECONDS, HAND_OVER_SECONDS
from supervisor.timeouts import HOST_MARGIN_SECONDS as MARGIN_SECONDS
from supervisor.tree.zygote_client import describe_end

__all__ = ["HOST_SLOT", "ManagedSimulation", "State"]

log = logging.getLogger(__name__)

HOST_SLOT = "host"
KILLED = "killed on request"
# What a host's slaves are told may be large.
MAX_FRAME_BYTES = 1 << 30


class State(Enum):
    """Where in its life a simulation is; the values travel in summaries."""

    STARTING = "starting"
    RUNNING = "running"
    CLOSING = "closing"
    ENDED = "ended"


class ManagedSimulation:
    """A simulation from its creation to its end.

    Args:
        name: Its own among those that live.
        order: For the host: entry, spec, environ, cwd, path.
        about: What its creator tells of it.
        log_file: Where its processes log.
        token: Its creator's.

    Attributes:
        up: Set once it runs, or is known not to come up: ``failure`` says why.
        host_gone: Set when its host's process is over.
        ended: Set last: nothing of it is left.
    """

    def __init__(self, name: str, order: Told, about: Told, log_file: str, token: str = "") -> None:
        self.name = name
        self.token = token
        self.state = State.STARTING
        self.since = time.time()
        self.pid: int | None = None
        self.info = b""
        self.cause = ""
        self.expected = False
        self.failure: str | None = None
        self.up = trio.Event()
        self.host_gone = trio.Event()
        self.ended = trio.Event()
        self._about = about
        self._place = {key: order[key] for key in ("cwd", "path", "environ")}
        ids = {FILE_VARIABLE: _plain(log_file), SIMULATION_VARIABLE: name}
        named = {"slot": HOST_SLOT, "name": f"host {name}"}
        self._order = {**order, **named, "environ": {**order["environ"], **ids}}
        self._service: Service | None = None
        self._start_scope = trio.CancelScope()
        self._receipts: dict[str, Told] = {}
        self._killed = ""
        self._asking: _Question | None = None

    # ---- life

    async def run(self, tree: Tree, timeout: float | None) -> None:
        """Start the host, wait for its end, and end what it leaves."""
        try:
            async with tree.open_simulation() as actors, trio.open_nursery() as tasks:
                self._tasks = tasks
                self._service = Service(actors, tasks, self._note_exit, others=1)
                await self._live(self._service, timeout)
                tasks.cancel_scope.cancel()
        finally:
            self.state = State.ENDED
            self.cause = self.cause or "the supervisor ended"
            self._order = {}
            for event in (self.up, self.host_gone, self.ended):
                event.set()
            log.info("simulation %s ended: %s", self.name, self.cause)

    async def _live(self, service: Service, timeout: float | None) -> None:
        try:
            ours, theirs = _socketpairs()
        except StartError as error:
            self.failure = self.cause = str(error)
            return
        with theirs[0], theirs[1], trio.socket.from_stdlib_socket(ours[0]) as self._hand:
            self._front = self._open_front(service, ours[1])
            self._tasks.start_soon(self._front.connection.run)
            with self._start_scope:
                await self._start(service, theirs, timeout)
            if self._start_scope.cancel_called:  # perhaps too late to catch it
                self.failure = f"simulation {self.name!r} was closed while it was starting"
            if self.failure is not None:
                self.cause = self.failure
            else:
                async with trio.open_nursery() as self._enders:
                    if self.state is State.STARTING:
                        self.state = State.RUNNING
                        log.info("simulation %s runs, its host is pid %d", self.name, self.pid)
                    self.up.set()
                    await self.host_gone.wait()
            await self._clear(service)

    async def _start(
        self, service: Service, theirs: Sequence[socket.socket], timeout: float | None
    ) -> None:
        hand, control = theirs
        await fd_passing.send(
            self._hand, fd_passing.CONTROL, "the supervisor", b"", control.fileno()
        )
        try:
            (told,) = await service.start([self._order], timeout, [hand.fileno()])
        except StartError as error:
            self.failure = str(error)
        else:
            self.pid, self.info = told["pid"], told["info"]
        finally:
            for sock in theirs:
                sock.close()

    async def _clear(self, service: Service) -> None:
        """The host is gone: end its slaves, those of starts under way too."""
        self._front.connection.abort()
        await self._front.connection.closed.wait()
        self._keep(await service.close())

    def _note_exit(self, told: Told) -> None:
        if told["slot"] != HOST_SLOT:
            self._front.post("exited", told)
            return
        clean = told["returned"] and told["exit_code"] == 0
        self.expected = told["expected"] or clean
        self.cause = "closed" if clean else self._tell_cause(told)
        self.host_gone.set()

    def _tell_cause(self, told: Told) -> str:
        if self._killed:
            return self._killed
        how = describe_end(told["exit_code"], told["signal"])
        if told["error"] is not None:
            how = f"failed: {told['error']}"
        start = "closed, but the host" if self.expected else "the host"
        return f"{start} (pid {told['pid']}) {how}"

    # ---- what the host may ask

    def _open_front(self, service: Service, sock: socket.socket) -> MethodServer:
        async def start(orders: Sequence[Told], timeout: float | None = None) -> list[Told]:
            _check_slots([order["slot"] for order in orders])
            return await service.start(orders, timeout)

        async def stop(
            slots: Sequence[str] | None, grace: float = GRACE_SECONDS, payload: bytes = b""
        ) -> list[Told]:
            if slots is None:
                slots = [told["slot"] for told in self.processes if told["slot"] != HOST_SLOT]
            _check_slots(slots)
            return await service.stop(slots, grace, payload)

        methods: dict[str, Method] = {"start": start, "stop": stop}
        name = f"host of {self.name}"
        return MethodServer(ConnectedStream(sock), methods, name, FrameReader(MAX_FRAME_BYTES))

    # ---- what others ask

    @property
    def processes(self) -> list[Told]:
        """slot, name and pid of its processes, the host's first."""
        return [] if self._service is None else self._service.processes

    async def summary(self) -> Told:
        """What `ls` shows of it."""
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "since": self.since,
            "cause": self.cause,
            "host": await self.describe() if self.state is State.RUNNING else None,
        }

    async def details(self) -> Told:
        """What `inspect` shows of it."""
        return {
            **await self.summary(),
            "about": self._about,
            **self._place,
            "processes": self.processes,
            "receipts": list(self._receipts.values()),
            "expected": self.expected,
        }

    async def describe(self, seconds: float = DESCRIBE_SECONDS) -> Told | None:
        """What its host tells of itself; None where it does not answer in time.

        Those who ask at a time share one question: a stopped host is not sent a heap of them.
        """
        if self._asking is None:
            if not self._front.connection.alive or self.host_gone.is_set():
                return None
            self._asking = _Question()
            self._tasks.start_soon(self._ask, self._asking)
        question = self._asking
        with trio.move_on_after(seconds):
            await question.answered.wait()
        return question.answer

    async def _ask(self, question: _Question) -> None:
        try:
            answer = await self._front.call("describe", timeout=HAND_OVER_SECONDS)
            question.answer = answer if isinstance(answer, dict) else None
        except CreamasError as error:
            log.debug("the host of %s does not describe itself: %s", self.name, error)
        finally:
            self._asking = None
            question.answered.set()

    async def hand_over(self, note: str, backlog: bytes, fd: int) -> None:
        """Hand the connection ``fd`` of a client over to the host.

        Raises:
            CallRefused: It does not run.
            ConnectionLost: Its host does not answer.
            HostLost: Its host has just ended.
        """
        if self.state is not State.RUNNING:
            raise CallRefused(f"simulation {self.name!r} is {self.state.value}")
        if await self.describe(HAND_OVER_SECONDS) is not None:
            try:
                with trio.move_on_after(HAND_OVER_SECONDS):
                    await fd_passing.send(self._hand, fd_passing.CLIENT, note, backlog, fd)
                    return
            except (OSError, trio.ClosedResourceError) as error:
                raise self._lost() from error
        if not self._front.connection.alive:
            raise self._lost()
        raise ConnectionLost(
            f"the host of simulation {self.name!r} (pid {self.pid}) does not answer",
            may_have_run=False,
        )

    def _lost(self) -> HostLost:
        return HostLost(
            f"simulation {self.name!r} is ending: its host (pid {self.pid}) is gone",
            may_have_run=False,
        )

    # ---- ending it

    async def close(self, grace: float, payload: bytes) -> Told:
        """Take the host down the ladder, whoever asks and goes; its receipt.

        Asked again, the shorter patience counts.
        """

        async def end(service: Service) -> None:
            try:
                receipts = await service.stop([HOST_SLOT], grace + MARGIN_SECONDS, payload)
            except CreamasError as error:  # another's request was faster
                log.debug("closing %s again: %s", self.name, error)
            else:
                self._keep(receipts)

        self._take_down(end)
        await self.ended.wait()
        return self._receipts.get(HOST_SLOT, {"slot": HOST_SLOT, "pid": self.pid, "payload": None})

    async def kill(self, why: str = "") -> list[Told]:
        """End all of it at once, with no request; the receipts.

        Args:
            why: For its cause.
        """
        if not self.host_gone.is_set():
            self._killed = self._killed or (f"killed: {shorten(why)}" if why else KILLED)

        async def end(service: Service) -> None:
            self._keep(await service.kill())

        self._take_down(end)
        await self.ended.wait()
        return list(self._receipts.values())

    def abandon(self) -> None:
        """Give up its start."""
        self._start_scope.cancel()

    def _take_down(self, end: Callable[[Service], Awaitable[object]]) -> None:
        if self.ended.is_set():
            return
        if self.state is not State.CLOSING:
            log.info("simulation %s is to end", self.name)
        self.state = State.CLOSING
        if not self.up.is_set():
            self.abandon()
        elif not self.host_gone.is_set():
            assert self._service is not None
            self._enders.start_soon(end, self._service)

    def _keep(self, receipts: Sequence[Told]) -> None:
        for receipt in receipts:
            self._receipts.setdefault(receipt["slot"], receipt)


def _check_slots(slots: Sequence[str]) -> None:
    if HOST_SLOT in slots:
        raise CallRefused(f"the slot {HOST_SLOT!r} is the host's own")


class _Question:
    """One `describe` under way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Told | None = None


def _socketpairs() -> tuple[Sequence[socket.socket], Sequence[socket.socket]]:
    """Our and the host's ends of the way to hand over connections, and of its control stream.

    Raises:
        StartError: There are no descriptors left.
    """
    made: list[tuple[socket.socket, socket.socket]] = []
    try:
        for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
            made.append(socket.socketpair(socket.AF_UNIX, kind))
    except OSError as error:
        for sock in (each for pair in made for each in pair):
            sock.close()
        raise StartError(f"cannot start a host: {error.strerror}") from error
    ours, theirs = zip(*made, strict=True)
    return ours, theirs


def _plain(text: str) -> str:
    """Bytes of the operating system's, a character each, as environments travel in orders."""
    return os.fsencode(text).decode("latin-1")
