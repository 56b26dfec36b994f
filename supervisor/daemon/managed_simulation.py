"""One simulation of a daemon: its host process, the host's slaves, and what is known of them.

    STARTING --host is ready--> RUNNING --close or kill--> CLOSING --nothing is left--> ENDED
        |                          `----host has ended by itself------------------------^
        `----the host failed, or its creator is gone------------------------------------^

`ManagedSimulation.run` is the one task that sees it through; `close` and `kill` only start what
ends the host, and wait for ``ended``. If their caller goes, that continues.

The host inherits one end of a SEQPACKET socket, over which it is handed connections (see
`creamas_sc.rpc.fd_passing`): the first is its control connection, over which it asks for slaves and
is asked how it is; all others are clients.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from enum import Enum
from typing import Any

import trio

from creamas_sc.errors import CallRefused, ConnectionLost, CreamasError, HostLost, StartError
from creamas_sc.foreign import shorten
from creamas_sc.rpc import fd_passing
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.log_setup import FILE_VARIABLE, SIMULATION_VARIABLE
from creamas_sc.supervisor_client import messages
from creamas_sc.wire.frames import FrameReader
from supervisor import timeouts
from supervisor.actors.pool import ActorPool
from supervisor.actors.tractor_adapter import open_simulation
from supervisor.nodes.placement import Placement
from supervisor.nodes.registry import NodeRegistry
from supervisor.rpc_server import Method, MethodServer

log = logging.getLogger(__name__)

HOST_SLOT = "host"
KILLED = "killed on request"
# The specs of a host's slaves may be large.
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
        name: Unique among those that live.
        order: For the host.
        about: What its creator says of it.
        log_file: Where its processes log.
        nodes: Where its slaves may run.
        token: Its creator's.

    Attributes:
        up: Set once it runs, or with ``ended`` if it did not start: ``cause`` says why.
        host_gone: Set when its host's process is over.
        ended: Set last: nothing of it is left.
    """

    state = State.STARTING
    pid: int | None = None
    info = b""
    cause = ""
    expected = False
    _killed = ""
    _pool: ActorPool | None = None

    def __init__(
        self,
        name: str,
        order: messages.ProcessOrder,
        about: dict[str, Any],
        log_file: str,
        nodes: NodeRegistry,
        token: str = "",
    ) -> None:
        self.name = name
        self.token = token
        self.since = time.time()
        self.up = trio.Event()
        self.host_gone = trio.Event()
        self.ended = trio.Event()
        self._about = about
        self._log_file = log_file
        self._nodes = nodes
        self._order = order
        self._start_scope = trio.CancelScope()
        self._results: dict[str, messages.StopResult] = {}
        self._questions: dict[str, _Question] = {}

    # ---- life

    async def run(self, timeout: float | None) -> None:
        """Start the host, wait for its end, and end what it leaves."""
        try:
            with ExitStack() as sockets:
                try:
                    hand, host_hand = _socketpair(sockets, socket.SOCK_SEQPACKET)
                    control, host_control = _socketpair(sockets, socket.SOCK_STREAM)
                except OSError as error:
                    self.cause = f"cannot start a host: {error.strerror}"
                    return
                self._hand = sockets.enter_context(trio.socket.from_stdlib_socket(hand))
                async with open_simulation() as actors, trio.open_nursery() as self._tasks:
                    place = Placement(actors, self._nodes)
                    pool = self._pool = ActorPool(place, self._note_exit, others=1)
                    self._server = self._open_server(pool, control)
                    self._tasks.start_soon(self._server.connection.run)
                    with self._start_scope:
                        await self._start(pool, host_hand, host_control, timeout)
                    if self._start_scope.cancel_called:  # even if it was too late to be caught
                        self.cause = f"simulation {self.name!r} was closed while it was starting"
                    if not self.cause:
                        await self._until_host_gone()
                    # End the host's slaves, those of starts under way too.
                    self._server.connection.abort()
                    await self._server.connection.closed.wait()
                    self._keep(await pool.close())
                    place.forget()
                    self._tasks.cancel_scope.cancel()
        finally:
            self.state = State.ENDED
            self.cause = self.cause or "the supervisor ended"
            for event in (self.up, self.host_gone, self.ended):
                event.set()
            log.info("simulation %s ended: %s", self.name, self.cause)

    async def _start(
        self, pool: ActorPool, hand: socket.socket, control: socket.socket, timeout: float | None
    ) -> None:
        """Start the host, with its ends of the sockets."""
        order: messages.ActorOrder = {
            "slot": HOST_SLOT,
            "name": f"host {self.name}",
            "node": "",
            **self._order,
        }
        ids = {FILE_VARIABLE: messages.os_bytes(self._log_file), SIMULATION_VARIABLE: self.name}
        order["environ"] = {**order["environ"], **ids}
        self._order = {**self._order, "spec": b""}  # it may be large
        try:
            await fd_passing.send(
                self._hand, fd_passing.CONTROL, "the supervisor", b"", control.fileno()
            )
            (started,) = await pool.start([order], timeout, [hand.fileno()])
        except StartError as error:
            self.cause = str(error)
        else:
            self.pid, self.info = started["pid"], started["info"]
        finally:
            hand.close()
            control.close()

    async def _until_host_gone(self) -> None:
        async with trio.open_nursery() as self._enders:
            self.state = State.RUNNING
            log.info("simulation %s runs, its host is pid %d", self.name, self.pid)
            self.up.set()
            await self.host_gone.wait()

    def _note_exit(self, message: messages.ActorExit) -> None:
        if message["slot"] != HOST_SLOT:
            self._server.post("exited", message)
            return
        clean = message["returned"] and message["exit_code"] == 0
        self.expected = message["expected"] or clean
        how = messages.describe_exit(message["exit_code"], message["signal"])
        if message["error"] is not None:
            how = f"failed: {message['error']}"
        start = "closed, but the host" if self.expected else "the host"
        cause = "closed" if clean else self._killed or f"{start} (pid {message['pid']}) {how}"
        self.cause = self.cause or cause  # it may have been closed while it was starting
        self.host_gone.set()

    # ---- what the host may ask

    def _open_server(self, pool: ActorPool, sock: socket.socket) -> MethodServer:
        async def start(
            orders: Sequence[messages.ActorOrder],
            timeout: float | None = None,
            code: messages.Code | None = None,
        ) -> list[messages.StartedActor]:
            _check_slots([order["slot"] for order in orders])
            return await pool.start(orders, timeout, code=code)

        async def stop(
            slots: Sequence[str], grace: float, payload: bytes
        ) -> list[messages.StopResult]:
            _check_slots(slots)
            return await pool.stop(slots, grace, payload)

        methods: dict[str, Method] = {
            "start": start,
            "stop": stop,
            "loads": pool.loads,
            "nodes": self._nodes.nodes,
            "wait_nodes": self._nodes.wait_nodes,
        }
        name = f"host of {self.name}"
        return MethodServer(ConnectedStream(sock), methods, name, FrameReader(MAX_FRAME_BYTES))

    # ---- what others ask

    @property
    def processes(self) -> list[messages.ProcessInfo]:
        """Its processes, the host's first."""
        return [] if self._pool is None else self._pool.processes

    async def summary(self) -> messages.HostSummary:
        """What `ls` shows of it."""
        host = None
        if self.state is State.RUNNING:
            host = await self._ask_host("describe", timeouts.DESCRIBE_SECONDS)
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "since": self.since,
            "cause": self.cause,
            "host": host if isinstance(host, dict) else None,
        }

    async def details(self) -> messages.HostDetails:
        """What `inspect` shows of it."""
        return {
            **await self.summary(),
            "about": self._about,
            "cwd": self._order["cwd"],
            "path": self._order["path"],
            "environ": self._order["environ"],
            "processes": self.processes,
            "stop_results": list(self._results.values()),
            "expected": self.expected,
        }

    async def stacks(self, seconds: float) -> dict[str, Any]:
        """Where the code of its slaves on nodes is just now; see `JoinedNode.stacks`."""
        return {} if self._pool is None else await self._pool.stacks(seconds)

    def forget_order(self) -> None:
        """Give up what may be large; garbage of a simulation is seldom collected."""
        self._order = {**self._order, "environ": {}, "path": []}

    async def is_ending(self) -> bool:
        """Whether it is about to end; a host that was killed a moment ago is known to be, too."""
        if self.state is State.RUNNING and not self.host_gone.is_set():
            if await self._ask_host("ping", timeouts.DESCRIBE_SECONDS):
                return self.state is not State.RUNNING or self.host_gone.is_set()
            with trio.move_on_after(timeouts.EXIT_KNOWN_SECONDS):
                await self.host_gone.wait()
        return self.state in (State.CLOSING, State.ENDED) or self.host_gone.is_set()

    async def _ask_host(self, method: str, seconds: float) -> Any:
        """The host's answer; None if it does not come in time.

        Those who ask at the same time share one call: a stopped host is not sent a heap of them.
        """
        question = self._questions.get(method)
        if question is None:
            if not self._server.connection.alive or self.host_gone.is_set():
                return None
            question = self._questions[method] = _Question()
            self._tasks.start_soon(self._call_host, method, question)
        with trio.move_on_after(seconds):
            await question.answered.wait()
        return question.answer

    async def _call_host(self, method: str, question: _Question) -> None:
        try:
            question.answer = await self._server.call(method, timeout=timeouts.HAND_OVER_SECONDS)
        except CreamasError as error:
            log.debug("the host of %s does not answer to %s: %s", self.name, method, error)
        finally:
            del self._questions[method]
            question.answered.set()

    async def hand_over(self, note: str, backlog: bytes, fd: int) -> None:
        """Hand the connection ``fd`` of a client over to the host.

        Raises:
            CallRefused: The simulation is not running.
            ConnectionLost: Its host does not answer.
            HostLost: Its host has just ended.
        """
        if self.state is not State.RUNNING:
            raise CallRefused(f"simulation {self.name!r} is {self.state.value}")
        lost = HostLost(
            f"simulation {self.name!r} is ending: its host (pid {self.pid}) is gone",
            may_have_run=False,
        )
        if await self._ask_host("ping", timeouts.HAND_OVER_SECONDS):
            try:
                with trio.move_on_after(timeouts.HAND_OVER_SECONDS):
                    await fd_passing.send(self._hand, fd_passing.CLIENT, note, backlog, fd)
                    return
            except (OSError, trio.ClosedResourceError) as error:
                raise lost from error
        if not self._server.connection.alive:
            raise lost
        raise ConnectionLost(
            f"the host of simulation {self.name!r} (pid {self.pid}) does not answer",
            may_have_run=False,
        )

    # ---- ending it

    async def close(self, grace: float, payload: bytes, why: str = "") -> messages.StopResult:
        """Stop the host, even if the caller goes; its result.

        Asked again, the shorter grace counts.

        Args:
            why: For its cause; empty if a user wants it.
        """
        if not self.host_gone.is_set():
            self.cause = self.cause or why

        async def stop_host(pool: ActorPool) -> None:
            try:
                self._keep(
                    await pool.stop([HOST_SLOT], grace + timeouts.HOST_MARGIN_SECONDS, payload)
                )
            except CreamasError as error:  # another request was faster
                log.debug("closing %s again: %s", self.name, error)

        self._end_by(stop_host)
        await self.ended.wait()
        if HOST_SLOT in self._results:
            return self._results[HOST_SLOT]
        return {"slot": HOST_SLOT, "pid": self.pid, "payload": None}  # type: ignore[typeddict-item]

    async def kill(self, why: str = "") -> list[messages.StopResult]:
        """End all of it at once, without a request; the results.

        Args:
            why: For its cause.
        """
        if not self.host_gone.is_set():
            self._killed = self._killed or (f"killed: {shorten(why)}" if why else KILLED)

        async def kill_all(pool: ActorPool) -> None:
            self._keep(await pool.kill())

        self._end_by(kill_all)
        await self.ended.wait()
        return list(self._results.values())

    def _end_by(self, end: Callable[[ActorPool], Awaitable[object]]) -> None:
        """Have ``end`` run, unless the host is gone or only starting."""
        if self.ended.is_set():
            return
        if self.state is not State.CLOSING:
            log.info("simulation %s is to end", self.name)
        self.state = State.CLOSING
        if not self.up.is_set():
            self._start_scope.cancel()
        elif not self.host_gone.is_set():
            assert self._pool is not None
            self._enders.start_soon(end, self._pool)

    def _keep(self, results: Sequence[messages.StopResult]) -> None:
        for result in results:
            self._results.setdefault(result["slot"], result)


class _Question:
    """A call of the host that is under way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Any = None


def _check_slots(slots: Sequence[str]) -> None:
    if HOST_SLOT in slots:
        raise CallRefused(f"the slot {HOST_SLOT!r} is reserved for the host")


def _socketpair(stack: ExitStack, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Our and the host's end of a connection, which the stack closes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    return stack.enter_context(ours), stack.enter_context(theirs)
