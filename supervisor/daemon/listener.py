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
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import trio

from creamas_sc.errors import BadArguments, CreamasError, ProtocolError, StartError, to_wire
from creamas_sc.rpc.accepting import accept
from creamas_sc.rpc.auth import user_membership
from creamas_sc.rpc.connection import perform_handshake
from creamas_sc.rpc.fd_passing import MAX_BACKLOG_BYTES
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.log_setup import bound
from creamas_sc.runtime.peer_user import peer_pid, stranger
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import MAX_CONTROL_FRAME_BYTES, Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake, Identity
from creamas_sc.wire.protocol import request_header
from supervisor import timeouts
from supervisor.daemon.managed_simulation import ManagedSimulation
from supervisor.rpc_server import CODEC, Method, MethodServer

log = logging.getLogger(__name__)

# What clients and daemons call the simulation that their handshake is about.
SIMULATION = "creamas-supervisor"
MAX_CONNECTIONS = 1024
# As many may wait to be accepted: beyond, a client on trio would not see that it is not connected.
BACKLOG = 1024
_READ_BYTES = 1 << 18
# How a connection may fail before it is served or handed over.
_GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Listener:
    """Listens at ``path`` for processes of this user.

    Args:
        methods: What clients may call.
        find: The simulation of a name; raises what the client is to get.
        max_connections: How many may be open here; those that were handed over do not count.
    """

    def __init__(
        self,
        path: Path,
        methods: Mapping[str, Method],
        find: Callable[[object], ManagedSimulation],
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._path = path
        self._methods = methods
        self._find = find
        self._max_connections = max_connections
        key = user_membership().key
        self._identity = Identity(SIMULATION, key, "supervisor", str(path), os.getpid())
        self._listener = trio.SocketListener(_listen(path))
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
                while (accepted := await accept(self._listener)) is not None:
                    sock = socket.socket(fileno=accepted.socket.detach())
                    self._admit(sock, self._clients)
        finally:
            self.shut()

    def shut(self) -> None:
        """Let no more clients in; those that are served stay."""
        if self._listener.socket.fileno() >= 0:
            self._listener.socket.close()
            self._path.unlink(missing_ok=True)

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
            log.warning("refused a connection of %s", who)
            sock.close()
        elif len(clients.child_tasks) >= self._max_connections:
            log.warning("refused a connection of pid %d: %d are open", pid, self._max_connections)
            sock.close()
        else:
            clients.start_soon(self._handle, sock, f"pid {pid}")

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
            server = MethodServer(stream, self._methods, f"client {note}", reader, [first])
            self._servers.add(server)
            try:
                await server.connection.run()
            finally:
                self._servers.discard(server)
        except anyio.EndOfStream:
            log.debug("%s went away", note)
        except (CreamasError, *_GONE) as error:
            why = str(error) or type(error).__name__
            log.warning("refused a connection of %s: %s", note, why)
        finally:
            with trio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)

    async def _first_request(self, stream: ConnectedStream, reader: FrameReader) -> Frame:
        """The first request after the handshake."""
        handshake = Handshake(self._identity, client=False)
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


def _listen(path: Path) -> trio.socket.SocketType:
    """Open a listener at ``path``, where no file may be, for this user alone.

    Raises:
        StartError: It cannot be opened.
    """
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen at {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return trio.socket.from_stdlib_socket(sock)


async def _next_frame(stream: ConnectedStream, reader: FrameReader) -> Frame:
    """Read one frame and nothing behind it, which may be for another process to read."""
    while True:
        data = await stream.receive(min(reader.missing_bytes, _READ_BYTES))
        for frame in reader.receive_data(data):
            return frame
