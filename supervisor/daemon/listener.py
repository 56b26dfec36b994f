"""Where clients of a daemon come in: a unix socket, a proof of who they are, and a first request.

The first request decides. One to be attached to a simulation is handed on to its host, descriptor
and all; whoever asks for anything else is served here.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgpack
import trio

from creamas_sc.errors import (
    BadArguments,
    CreamasError,
    ProtocolError,
    StartError,
    to_wire,
)
from creamas_sc.rpc.auth import user_membership
from creamas_sc.rpc.connection import perform_handshake
from creamas_sc.rpc.fd_passing import MAX_BACKLOG_BYTES
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.log_setup import bound
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import (
    MAX_CONTROL_FRAME_BYTES,
    Frame,
    FrameReader,
    Kind,
    encode_frame,
)
from creamas_sc.wire.handshake import Handshake, Identity
from supervisor.daemon.simulation import ManagedSimulation
from supervisor.rpc_server import CODEC, Method, MethodServer
from supervisor.timeouts import (
    ACCEPT_PAUSE_SECONDS,
    DISMISS_SECONDS,
    FIRST_REQUEST_SECONDS,
    HANDSHAKE_SECONDS,
)

__all__ = ["MAX_CONNECTIONS", "SIMULATION", "Doorway"]

log = logging.getLogger(__name__)

# What clients and daemons call the simulation that their handshake is about.
SIMULATION = "creamas-supervisor"
MAX_CONNECTIONS = 1024
# As many may knock at once: past it a client on trio would not see that it is not connected.
BACKLOG = 1024
_READ_BYTES = 1 << 18
_CREDENTIALS = struct.Struct("3i")
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
# How a stranger's connection may end on its way in.
_REFUSALS = (CreamasError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)


class _Attach(NamedTuple):
    """A request to be attached, and the bytes it came as."""

    call_id: int
    name: str
    backlog: bytes


class Doorway:
    """Listens at ``path`` and lets this user's own processes in.

    Args:
        methods: What clients may call.
        find: The simulation of a name; raises what the client is to be told.
        max_connections: How many may be open here; those that were handed on do not count.
    """

    def __init__(
        self,
        path: Path,
        methods: Mapping[str, Method],
        find: Callable[[str], ManagedSimulation],
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._path = path
        self._methods = methods
        self._find = find
        self._max_connections = max_connections
        key = user_membership().key
        self._identity = Identity(SIMULATION, key, "supervisor", str(path), os.getpid())
        self._listener = _listen(path)
        self._fronts: set[MethodServer] = set()
        self._open = 0
        self._clients: trio.Nursery | None = None

    @property
    def clients(self) -> int:
        """How many clients are served here; those that were handed on do not count."""
        return len(self._fronts)

    async def run(self) -> None:
        """Let clients in until `shut`, and serve them until `aclose`."""
        try:
            async with trio.open_nursery() as self._clients:
                with self._listener:
                    while (sock := await self._accept()) is not None:
                        self._admit(sock, self._clients)
        finally:
            self.shut()

    def shut(self) -> None:
        """Let nobody else in; those within stay."""
        if self._listener.fileno() >= 0:
            self._listener.close()
            self._path.unlink(missing_ok=True)

    async def aclose(self) -> None:
        """Write out what is queued for clients, within a bound, and end all connections."""
        self.shut()
        async with trio.open_nursery() as closing:
            for front in self._fronts:
                closing.start_soon(front.connection.aclose)
        if self._clients is not None:
            self._clients.cancel_scope.cancel()

    # ---- letting in

    async def _accept(self) -> socket.socket | None:
        """The next connection; None once nobody is let in any more."""
        told = False
        while True:
            try:
                accepted, _ = await self._listener.accept()
            except trio.ClosedResourceError:
                return None
            except OSError as error:
                if self._listener.fileno() < 0:
                    return None
                if error.errno in _SCARCE:
                    if not told:
                        log.warning("cannot accept connections now: %s", error.strerror)
                        told = True
                    await trio.sleep(ACCEPT_PAUSE_SECONDS)
            else:
                return socket.socket(fileno=accepted.detach())

    def _admit(self, sock: socket.socket, clients: trio.Nursery) -> None:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid != os.getuid():
            log.warning("refused a connection of pid %d: it is of user id %d", pid, uid)
            sock.close()
        elif self._open >= self._max_connections:
            log.warning("refused a connection of pid %d: %d are open", pid, self._open)
            sock.close()
        else:
            self._open += 1
            clients.start_soon(self._welcome, sock, f"pid {pid}")

    async def _welcome(self, sock: socket.socket, note: str) -> None:
        """See one client to where it wants to go."""
        stream = ConnectedStream(sock)
        try:
            reader = FrameReader(MAX_CONTROL_FRAME_BYTES)
            first = await self._first_request(stream, reader, note)
            if first is None:
                return
            attach = self._as_attach(first)
            if attach is None:
                await self._serve(stream, reader, first, note)
            else:
                await self._hand_over(stream, sock.fileno(), attach, note)
        except _REFUSALS as error:
            why = str(error) or type(error).__name__
            log.warning("refused a connection of %s: %s", note, why)
        finally:
            self._open -= 1
            with trio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)

    async def _first_request(
        self, stream: ConnectedStream, reader: FrameReader, note: str
    ) -> Frame | None:
        """The first request of a client that has proved itself; None where it just went away."""
        handshake = Handshake.server(self._identity)
        waits_for = "proof"
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await perform_handshake(stream, handshake)
            waits_for = "request"
            with trio.fail_after(FIRST_REQUEST_SECONDS):
                first = await _next_frame(stream, reader)
        except anyio.EndOfStream:
            log.debug("%s went away", note)
            return None
        except trio.TooSlowError:
            raise ProtocolError(f"no {waits_for} came in time") from None
        if first.kind is not Kind.REQUEST:
            raise ProtocolError(f"expected a request, not {first.kind.name}")
        return first

    # ---- serving

    async def _serve(
        self, stream: ConnectedStream, reader: FrameReader, first: Frame, note: str
    ) -> None:
        front = MethodServer(stream, self._methods, f"client {note}", reader, [first])
        self._fronts.add(front)
        try:
            await front.connection.run()
        finally:
            self._fronts.discard(front)

    # ---- handing over

    def _as_attach(self, first: Frame) -> _Attach | None:
        try:
            target, method, _ = msgpack.unpackb(first.meta)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolError(f"malformed request: {error!r}") from error
        if target is not None or method != "attach":
            return None
        backlog = b"".join(encode_frame(*first))
        return _Attach(first.call_id, self._named(first), backlog)

    def _named(self, first: Frame) -> Any:
        try:
            (name, _), _ = CODEC.decode(Payload(first.body, first.parts))
        except (TypeError, ValueError):
            return None
        return name

    async def _hand_over(
        self, stream: ConnectedStream, fd: int, attach: _Attach, note: str
    ) -> None:
        try:
            if not isinstance(attach.name, str) or len(attach.backlog) > MAX_BACKLOG_BYTES:
                raise BadArguments("attach(name, about): a string, and a small dict")
            host = self._find(attach.name)
            await host.hand_over(note, attach.backlog, fd)
            with bound(simulation=attach.name):
                log.info("%s was handed to the host of simulation %s", note, attach.name)
        except CreamasError as error:
            told = CODEC.encode(to_wire(error))
            failure = encode_frame(Kind.FAILURE, attach.call_id, b"", told.body, told.parts)
            await _send_last(stream, failure)


def _listen(path: Path) -> trio.socket.SocketType:
    """A listener at ``path``, where nothing must be, for this user alone.

    Raises:
        StartError: It cannot be had.
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
    """Read one frame and nothing behind it: that may be for another process to read."""
    while True:
        data = await stream.receive(min(reader.missing_bytes, _READ_BYTES))
        for frame in reader.receive_data(data):
            return frame


async def _send_last(stream: ConnectedStream, pieces: list[Any]) -> None:
    """Tell a peer why it is refused, if it listens."""
    with trio.move_on_after(DISMISS_SECONDS):
        try:
            for data in pieces:
                await stream.send(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            log.debug("a refused peer is gone already")
