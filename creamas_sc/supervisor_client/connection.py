"""Connections to a supervisor: to a private one, or to the one that runs this process.

To get a private supervisor a process starts the keeper, with one end of a socketpair, and speaks
the frame protocol with the supervisor over the other end::

    this process --- socketpair --- supervisor ... actors
         |                              |
         `-- keeper -- zygote ----------'

When that connection closes, the supervisor ends everything it started and then
itself; the zygote follows, and the keeper last. These two hold one end of another socketpair: end
of file at our end means that both are gone, and with them the tree, however it died.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import ConnectionLost, CreamasError, StartError
from creamas_sc.rpc.connection import Connection, Handler
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.process_load import ProcessLoad
from creamas_sc.supervisor_client.launcher import Launched, give_back, is_lent, keep, launch
from creamas_sc.supervisor_client.messages import (
    ActorExit,
    ActorOrder,
    Code,
    NodeInfo,
    NodeSettings,
    StartedActor,
    StopResult,
)
from creamas_sc.wire.codec import Codec, Payload

log = logging.getLogger(__name__)

# From the connection's end to the keeper's: all stop stages of the supervisor, and some more.
END_SECONDS = 3.0
# From SIGKILL of the keeper to the end of its tree: as a rule some milliseconds, but the zygote
# takes up to five seconds to kill what the kernel is slow to end.
KILL_SECONDS = 6.0
# What the supervisor gives actors to become ready.
START_SECONDS = 30.0

OnExit = Callable[[ActorExit], None]


class Supervisor(Protocol):
    """Starts, watches and ends actors for this process."""

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `aclose` or cancellation."""

    async def start(
        self, orders: Sequence[ActorOrder], code: Code | None = None
    ) -> list[StartedActor]:
        """Start actors, all or none; see `SupervisorConnection.start`."""

    async def stop(self, slots: Sequence[str], grace: float, payload: bytes) -> list[StopResult]:
        """Stop actors; see `SupervisorConnection.stop`."""

    async def loads(self, slots: Sequence[str]) -> dict[str, ProcessLoad]:
        """What actors take; see `SupervisorConnection.loads`."""

    async def listen_for_nodes(self, settings: NodeSettings) -> tuple[str, int]:
        """Let nodes in; see `SupervisorConnection.listen_for_nodes`."""

    async def nodes(self) -> list[NodeInfo]:
        """The nodes that have joined, in that order."""

    async def wait_nodes(self, count: int, timeout: float) -> list[NodeInfo]:
        """Wait for nodes; see `SupervisorConnection.wait_nodes`."""

    async def aclose(self) -> None:
        """Release the supervisor."""


class SupervisorConnection:
    """A connection to a supervisor.

    Args:
        sock: Connected to it; closed with the connection. None if `connect` follows.
        on_exit: Called for each actor that ends.
        serve: Answers the supervisor's own calls, if it makes any.
    """

    def __init__(
        self, sock: socket.socket | None, on_exit: OnExit, serve: Handler | None = None
    ) -> None:
        self._on_exit = on_exit
        self._handler = serve
        self._codec = Codec()
        self._connection: Connection
        self._scope = trio.CancelScope()
        if sock is not None:
            self.connect(sock)

    def connect(self, sock: socket.socket) -> None:
        """Use ``sock`` from here on."""
        self._connection = Connection(
            ConnectedStream(sock), self._handler, on_event=self._take_event, name="the supervisor"
        )

    async def run(self) -> None:
        """Send and receive until the supervisor is gone, or until `end`."""
        with self._scope:
            await self._connection.run()

    def end(self) -> None:
        """End the connection."""
        self._scope.cancel()

    async def start(
        self, orders: Sequence[ActorOrder], code: Code | None = None
    ) -> list[StartedActor]:
        """Start actors, all or none; returns one answer per order, in the same order.

        What was lost with its node is started again only when it surely runs there no more.

        Args:
            code: What those on nodes load of the user's.

        Raises:
            StartError: One did not come up, its node is not there, or the supervisor itself did
                not come up.
        """
        try:
            # The supervisor keeps the deadline; this one is for a supervisor that never comes up.
            with trio.fail_after(START_SECONDS + END_SECONDS):
                answer = await self.call("start", list(orders), None, code)
                return answer  # type: ignore[no-any-return]
        except ConnectionLost as error:
            raise StartError("the supervisor ended while it was starting slaves") from error
        except trio.TooSlowError as error:
            raise StartError("the supervisor does not answer") from error

    async def stop(self, slots: Sequence[str], grace: float, payload: bytes) -> list[StopResult]:
        """Stop actors and return how that went.

        Args:
            slots: Which.
            grace: Seconds they have to end by themselves.
            payload: Goes to each entry with the request.
        """
        return await self.call("stop", slots, grace, payload)  # type: ignore[no-any-return]

    async def loads(self, slots: Sequence[str]) -> dict[str, ProcessLoad]:
        """What actors take of their machines, by slot; "unknown" if a node does not answer."""
        return await self.call("loads", slots)  # type: ignore[no-any-return]

    async def listen_for_nodes(self, settings: NodeSettings) -> tuple[str, int]:
        """Let nodes in, from now on until the supervisor ends or all actors are stopped.

        Returns:
            Host and port at which the supervisor listens.

        Raises:
            StartError: It cannot listen there, or something is not installed.
            CallRefused: It listens already, or this is a simulation of a daemon.
        """
        host, port = await self.call("listen_for_nodes", settings)
        return host, port

    async def nodes(self) -> list[NodeInfo]:
        """The nodes that have joined, in that order."""
        return await self.call("nodes")  # type: ignore[no-any-return]

    async def wait_nodes(self, count: int, timeout: float) -> list[NodeInfo]:
        """Wait until ``count`` nodes have joined, but not longer than ``timeout``; all there are.

        Raises:
            BadValue: An argument is not valid.
        """
        return await self.call("wait_nodes", count, timeout)  # type: ignore[no-any-return]

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method of the supervisor; see `supervisor.root`."""
        answer = await self._connection.call(None, method, self._codec.encode((args, {})))
        return self._codec.decode(answer)

    def _take_event(self, name: str, payload: Payload) -> None:
        if name == "exited":
            self._on_exit(self._codec.decode(payload))


class PrivateSupervisor(SupervisorConnection):
    """A supervisor that this process starts for itself.

    Args:
        on_exit: As of `SupervisorConnection`.
        inherited: Descriptors that the last process of its tree keeps open until it ends.
        preload: Modules that its zygote imports for all actors, beside those that slaves need.

    Attributes:
        gone: Set when nothing of it is left, or when it was given back.
    """

    def __init__(
        self, on_exit: OnExit, inherited: Sequence[int] = (), preload: Sequence[str] = ()
    ) -> None:
        super().__init__(None, on_exit)
        self._inherited = inherited
        self._preload = preload
        self._tree: Launched | None = None
        self._idle = False
        self.gone = trio.Event()

    # A Ctrl-C goes to the main task: here it would end the connection, and with it slaves that
    # were never asked to stop.
    @trio.lowlevel.enable_ki_protection
    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the supervisor and keep it until `aclose` or cancellation; then nothing is left.

        One that `prestart` has started is borrowed, and given back by `aclose`.

        Raises:
            StartError: There can be no supervisor here; the message says what to do.
        """
        tree = self._tree = launch(self._inherited, self._preload)
        try:
            self.connect(tree.sock.dup())  # the next borrower speaks over the same socket
            task_status.started()
            await super().run()
        finally:
            try:
                if self._idle:
                    give_back(tree)
                else:
                    keep(tree)
                    tree.sock.close()
                    with trio.CancelScope(shield=True):
                        await _reap_keeper(tree)
            finally:
                self.gone.set()

    async def aclose(self) -> None:
        """End the supervisor and all that it still runs; returns when all processes are gone."""
        with trio.CancelScope(shield=True):
            if self._tree is not None and is_lent(self._tree):
                # After its answer nothing more comes from the supervisor.
                with trio.move_on_after(END_SECONDS), suppress(CreamasError):
                    await self.call("stop", None)
                    self._idle = True
            self.end()
            await self.gone.wait()

    @property
    def exit_code(self) -> int | None:
        """How it ended: 0 if it was asked to; None while it runs."""
        return None if self._tree is None else self._tree.keeper.returncode

    def kill(self) -> None:
        """End everything at once, without a request; `run` returns when it is over."""
        if self._tree is not None:
            _kill(self._tree.keeper)


# Where a `MultiEnvironment` made in this context gets its supervisor.
supervisor_factory: ContextVar[Callable[[OnExit], Supervisor]] = ContextVar(
    "supervisor_factory", default=PrivateSupervisor
)


def _kill(keeper: subprocess.Popen[bytes]) -> None:
    """Kill it, and wake its zygote, which ends the others; the supervisor may be stopped, too."""
    try:
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
    except OSError:  # it is over
        children = []
    keeper.kill()
    for pid in map(int, children):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _reap_keeper(launched: Launched) -> None:
    """Wait until the tree is gone, by force when its time is up, and reap the keeper.

    As a rule the keeper is the last to die. One that was killed is survived by its zygote, for as
    long as that takes to end the others; `Launched.tree_ended` waits for both.
    """
    keeper = launched.keeper
    with launched.tree_ended:
        keeper.send_signal(signal.SIGCONT)
        with trio.move_on_after(END_SECONDS) as scope:
            await trio.lowlevel.wait_readable(launched.tree_ended)
        if scope.cancelled_caught:
            log.warning("the supervisor did not end within %g s", END_SECONDS)
            _kill(keeper)
            with trio.move_on_after(KILL_SECONDS) as scope:
                await trio.lowlevel.wait_readable(launched.tree_ended)
        if scope.cancelled_caught:
            log.warning("the supervisor's processes may not have ended in %g s", KILL_SECONDS)
            keeper.poll()
        else:
            keeper.wait()  # it is exiting: that is what closed its end
