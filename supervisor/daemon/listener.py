"""Lets clients of a daemon in, at a unix socket.

    accepted --this user's, not too many--> handshake --proof--> first request
                                                                   |-- attach: hand over to its host
                                                                   `-- anything else: serve here

A connection to be attached to a simulation is handed to its host, descriptor and all, together with
the request: the host answers. So exactly one frame may be read after the handshake, and nothing
behind it. Each step has a bound, and a connection counts against the limit until it ends here.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio
import trio

from creamas_sc.errors import BadArguments, CreamasError, ProtocolError, to_wire
from creamas_sc.rpc.accepting import RefusalLog, accept, keep_listening
from creamas_sc.rpc.auth import DAEMON_SIMULATION, Membership, user_membership
from creamas_sc.rpc.connection import perform_handshake
from creamas_sc.rpc.fd_passing import MAX_BACKLOG_BYTES
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.log_setup import bound
from creamas_sc.runtime.peer_user import peer_pid, stranger
from creamas_sc.supervisor_client.messages import os_bytes
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import MAX_CONTROL_FRAME_BYTES, Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake
from creamas_sc.wire.protocol import request_header
from supervisor import timeouts
from supervisor.daemon.managed_simulation import ManagedSimulation
from supervisor.daemon.place import DaemonPlace
from supervisor.rpc_server import CODEC, Method, MethodServer

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024
# Of one client: answers that it has not read yet, and as much again of calls.
MAX_UNREAD_BYTES = 64 << 20
# Of refusals, logged in a minute: who connects is of this user, and may have many programs.
MOST_REASONS = 100
_READ_BYTES = 1 << 18
# How a connection may fail before it is served or handed over.
_GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Listener:
    """Listens at a daemon's place for processes of this user, and keeps it in place.

    Args:
        methods: What clients may call.
        find: The simulation of a name; raises what the client is to get.
        on_replaced: Called when another daemon runs in the place.
        max_connections: How many may be open here; those that were handed over do not count.
    """

    def __init__(
        self,
        place: DaemonPlace,
        methods: Mapping[str, Method],
        find: Callable[[object], ManagedSimulation],
        on_replaced: Callable[[], object],
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._place = place
        self._methods = methods
        self._find = find
        self._on_replaced = on_replaced
        self._max_connections = max_connections
        self._listener = place.listen()
        self._listening = trio.CancelScope()
        self._refusals = RefusalLog(log, MOST_REASONS)
        self._servers: set[MethodServer] = set()
        self._clients: trio.Nursery | None = None

    @property
    def clients(self) -> int:
        """How many clients are served here; those that were handed over do not count."""
        return len(self._servers)

    async def run(self) -> None:
        """Let clients in until `shut`, and serve them until `aclose`."""
        try:
            async with trio.open_nursery() as self._clients:
                with self._listening:
                    await keep_listening(
                        self._listener, self._let_in, self._place.in_place, self._put_back
                    )
        finally:
            self.shut()
            self._refusals.close()

    async def _let_in(self, listener: trio.SocketListener) -> None:
        assert self._clients is not None
        while (accepted := await accept(listener)) is not None:
            self._admit(socket.socket(fileno=accepted.socket.detach()), self._clients)

    def _put_back(self) -> trio.SocketListener:
        try:
            self._listener = self._place.put_back()
        except CreamasError:
            if self._place.replaced:
                self._on_replaced()
            raise
        return self._listener

    def shut(self) -> None:
        """Let no more clients in; those that are served stay."""
        if self._listening.cancel_called:
            return
        self._listening.cancel()
        self._listener.socket.close()
        try:
            self._place.remove_socket()
        except OSError as error:
            log.warning("cannot remove %s: %s", self._place.path, error.strerror)

    async def aclose(self) -> None:
        """Write out what is queued for clients, within a bound, and end all connections."""
        async with trio.open_nursery() as closing:
            for server in self._servers:
                closing.start_soon(server.connection.aclose)
        if self._clients is not None:
            self._clients.cancel_scope.cancel()

    # ---- letting in

    def _admit(self, sock: socket.socket, clients: trio.Nursery) -> None:
        pid = peer_pid(sock)
        if (who := stranger(sock)) is not None:
            self._refuse("it is of another user", who)
            sock.close()
        elif len(clients.child_tasks) >= self._max_connections:
            self._refuse(f"{self._max_connections} are open", f"pid {pid}")
            sock.close()
        else:
            clients.start_soon(self._handle, sock, f"pid {pid}")

    def _refuse(self, why: str, who: str) -> None:
        self._refusals.add(logging.WARNING, why, who)

    async def _handle(self, sock: socket.socket, note: str) -> None:
        """Authenticate one client, read its first request, and serve it or hand it over."""
        stream = ConnectedStream(sock)
        try:
            reader = FrameReader(MAX_CONTROL_FRAME_BYTES)
            first = await self._first_request(stream, reader)
            target, method, _ = request_header(first.meta)
            if target is None and method == "attach":
                await self._hand_over(stream, sock.fileno(), first, note)
                return
            server = MethodServer(
                stream, self._methods, f"client {note}", reader, [first], MAX_UNREAD_BYTES
            )
            self._servers.add(server)
            try:
                await server.connection.run()
            finally:
                self._servers.discard(server)
        except anyio.EndOfStream:
            log.debug("%s went away", note)
        except (CreamasError, *_GONE) as error:
            self._refuse(str(error) or type(error).__name__, note)
        except Exception:  # of this connection alone: the daemon and all others go on
            log.exception("serving %s failed", note)
        finally:
            with trio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)

    async def _first_request(self, stream: ConnectedStream, reader: FrameReader) -> Frame:
        """The first request after the handshake."""
        # The key is read each time: a cleaner of temporary files may have removed it, and the
        # next client makes another one.
        member = Membership(DAEMON_SIMULATION, user_membership().key, "supervisor")
        handshake = Handshake(member.identity(os_bytes(str(self._place.path))), client=False)
        awaited = "proof"
        try:
            with trio.fail_after(timeouts.HANDSHAKE_SECONDS):
                await perform_handshake(stream, handshake)
            awaited = "request"
            with trio.fail_after(timeouts.FIRST_REQUEST_SECONDS):
                first = await _next_frame(stream, reader)
        except trio.TooSlowError:
            raise ProtocolError(f"no {awaited} came in time") from None
        if first.kind is not Kind.REQUEST:
            raise ProtocolError(f"expected a request, not {first.kind.name}")
        return first

    async def _hand_over(self, stream: ConnectedStream, fd: int, first: Frame, note: str) -> None:
        """Hand a client over with its request to be attached, or tell it why not."""
        backlog = b"".join(encode_frame(*first))
        name: object = None
        try:
            with suppress(TypeError, ValueError):  # refused below, with what it should be
                (name, _), _ = CODEC.decode(Payload(first.body, first.parts))
            if not isinstance(name, str) or len(backlog) > MAX_BACKLOG_BYTES:
                raise BadArguments("attach(name, about): needs a string and a small dict")
            await self._find(name).hand_over(note, backlog, fd)
            with bound(simulation=name):
                log.info("%s was handed to the host of simulation %s", note, name)
        except CreamasError as error:
            payload = CODEC.encode(to_wire(error))
            failure = encode_frame(Kind.FAILURE, first.call_id, b"", payload.body, payload.parts)
            with trio.move_on_after(timeouts.REFUSAL_SECONDS), suppress(*_GONE):
                await stream.send(b"".join(failure))


async def _next_frame(stream: ConnectedStream, reader: FrameReader) -> Frame:
    """Read one frame and nothing behind it, which may be for another process to read."""
    while True:
        data = await stream.receive(min(reader.missing_bytes, _READ_BYTES))
        for frame in reader.receive_data(data):
            return frame
