"""An environment's place on the network: its listener, and one connection to each peer.

Everything runs in the nursery of `Endpoint.run`; when that returns, listener, connections and their
tasks are gone.
"""

from __future__ import annotations

import errno
import functools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import anyio
import trio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskGroup, TaskStatus

from creamas_sc.errors import ConnectionLost, HandshakeError, ProtocolError, StartError
from creamas_sc.rpc.cancelling import served_call
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.serving import Handler
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.rpc.unix_shortcut import connect_near, listen_near
from creamas_sc.runtime.validation import check_text
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, FrameReader
from creamas_sc.wire.handshake import Handshake, Identity

__all__ = ["Endpoint", "base_url", "listen", "locate", "split_address"]

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0
# A peer of ours may be busy with an act; it answers once that is done.
ANSWER_SECONDS = 60.0
HANDSHAKE_BYTES = 4096
MAX_CONNECTIONS = 1024
RETRY_SECONDS = (0.01, 0.2)
ACCEPT_PAUSE_SECONDS = 0.1
DISMISS_SECONDS = 0.2
# The name that means this machine wherever it is asked (RFC 6761), so that nobody has to be: a
# lookup takes a thread, and the system's resolver in every process.
_LOOPBACK = {"localhost": "127.0.0.1"}


def base_url(host: str, port: int) -> str:
    """``tcp://host:port/``, to which an agent's number is appended."""
    return f"tcp://[{host}]:{port}/" if ":" in host else f"tcp://{host}:{port}/"


def split_address(address: str) -> tuple[str, int, int]:
    """Host, port and agent number of ``tcp://host:port/number``.

    Raises:
        ValueError: The address is not of that form.
    """
    check_text("addr", address)
    scheme, _, rest = address.partition("://")
    place, _, number = rest.partition("/")
    host, _, port = place.rpartition(":")
    if scheme == "tcp" and host and port.isdecimal() and number.isdecimal():
        if int(port) >= 1 << 16:
            raise ValueError(
                f"addr: {address!r} is not an agent's address: a port is at most 65535"
            )
        return host.strip("[]"), int(port), int(number)
    raise ValueError(
        f"addr: {address!r} is not an agent's address: expected 'tcp://host:port/number'"
    )


@functools.lru_cache(maxsize=1 << 10)  # addresses come and go with slaves
def locate(address: str) -> tuple[str, int]:
    """`base_url` of the environment of an agent's address, and the agent's number."""
    host, port, number = split_address(address)
    return base_url(host, port), number


class Endpoint:
    """Listens for peers of the same simulation and connects to them.

    Args:
        serve: Answers the calls of every connection.
        codec: Carries their errors.
        on_event: Told of each event: connection, name, payload.
        on_link: Told of each connection once its peer is known, before anything is read.
    """

    def __init__(
        self,
        serve: Handler,
        codec: Codec,
        on_event: Callable[[Connection, str, Payload], None],
        on_link: Callable[[Connection, Identity], None],
    ) -> None:
        self._serve = serve
        self._codec = codec
        self._on_event = on_event
        self._on_link = on_link
        self._identity: Identity | None = None
        self._links: dict[str, Connection] = {}
        self._opening: dict[str, anyio.Lock] = {}
        self._accepted = 0
        self._tasks: TaskGroup | None = None
        self._ended: anyio.Event | None = None

    async def run(
        self,
        listener: SocketListener,
        identity: Identity,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and keep connections until cancelled or `aclose` is called."""
        self._identity = identity
        self._ended = anyio.Event()
        try:
            with listen_near(identity.key, identity.address) as near:
                async with listener, anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    task_status.started()
                    if near is not None:
                        tasks.start_soon(self._accept_all, near.accept)
                    await self._accept_all(functools.partial(_accept, listener))
        finally:
            self._tasks = None
            self._links.clear()
            self._ended.set()

    async def aclose(self) -> None:
        """Write out what is queued, close everything and wait until it is closed."""
        if self._tasks is None:
            return
        # All of it is bounded: a cancelled close still closes.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as closing:
                for link in list(self._links.values()):
                    closing.start_soon(link.aclose)
            if self._tasks is not None and self._ended is not None:
                self._tasks.cancel_scope.cancel()
                if served_call.get() is None:
                    await self._ended.wait()

    def drop(self, url: str) -> None:
        """End the connection to a peer that is gone, where it has not noticed yet."""
        link = self._links.pop(url, None)
        if link is not None:
            link.abort()

    # ---- incoming

    async def _accept_all(self, accept: Callable[[], Awaitable[ByteStream]]) -> None:
        assert self._tasks is not None
        while True:
            try:
                stream = await accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    raise
                # Out of descriptors: the kernel keeps the peer waiting until some are free.
                log.warning("cannot accept a connection now: %s", error.strerror)
                await anyio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            if self._accepted >= MAX_CONNECTIONS:
                log.warning("refused a connection: %d are open", MAX_CONNECTIONS)
                await anyio.aclose_forcefully(stream)
                continue
            self._accepted += 1
            self._tasks.start_soon(self._welcome, stream)

    async def _welcome(self, stream: ByteStream) -> None:
        try:
            link = await self._authenticate(stream, client=False)
            if link is not None:
                await self._keep(link)
        finally:
            self._accepted -= 1

    async def _keep(self, link: Connection) -> None:
        """Run a connection to its end, and forget it: peers come and go."""
        try:
            await link.run()
        finally:
            for url in [url for url, each in self._links.items() if each is link]:
                del self._links[url]

    async def _authenticate(self, stream: ByteStream, *, client: bool) -> Connection | None:
        """A connection whose peer has proved itself; of an accepted stranger None, logged once."""
        assert self._identity is not None
        make = Handshake.client if client else Handshake.server
        handshake = make(self._identity)
        reader = FrameReader(HANDSHAKE_BYTES)
        try:
            with anyio.fail_after(ANSWER_SECONDS if client else HANDSHAKE_SECONDS):
                backlog = await _shake_hands(stream, handshake, reader)
        except (HandshakeError, ProtocolError, TimeoutError, OSError, anyio.EndOfStream,
                anyio.BrokenResourceError) as error:  # fmt: skip
            await _dismiss(stream, handshake)
            if client:
                raise
            # Whoever is killed in the middle of it is told of elsewhere.
            gone = isinstance(error, (anyio.EndOfStream, anyio.BrokenResourceError))
            level = logging.INFO if gone else logging.WARNING
            log.log(level, "refused a connection: %s", str(error) or type(error).__name__)
            return None
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)
            raise
        return self._link(stream, handshake.peer, reader, backlog)

    def _link(
        self, stream: ByteStream, peer: Identity, reader: FrameReader, backlog: list[Frame]
    ) -> Connection:
        reader.max_frame_bytes = FrameReader().max_frame_bytes
        link = Connection(
            stream,
            self._serve,
            codec=self._codec,
            on_event=lambda name, payload: self._on_event(link, name, payload),
            reader=reader,
            backlog=backlog,
            name=peer.address,
        )
        known = self._links.get(peer.address)
        if known is None or not known.alive:
            # The peer's own connection serves calls to it, too.
            self._links[peer.address] = link
        self._on_link(link, peer)
        return link

    # ---- outgoing

    def link(self, url: str) -> Connection | None:
        """The connection to the environment of that `base_url`, if it is open."""
        link = self._links.get(url)
        return link if link is not None and link.alive else None

    async def connection(self, host: str, port: int, *, timeout: float | None = 0) -> Connection:
        """The connection to the environment at ``host`` and ``port``, opened if need be.

        Args:
            timeout: Seconds to keep trying while nobody listens there; 0 for one attempt, None
                for no limit.

        Raises:
            ConnectionLost: Nobody listens there.
            HandshakeError: Who listens there is not of this simulation.
        """
        url = base_url(host, port)
        link = self._links.get(url)
        if link is not None and link.alive:
            return link
        lock = self._opening.setdefault(url, anyio.Lock())
        try:
            async with lock:
                link = self._links.get(url)
                if link is None or not link.alive:
                    link = await self._open(host, port, timeout)
                return link
        finally:
            if not lock.statistics().locked:  # nobody else waits: the next one makes a new one
                self._opening.pop(url, None)

    async def _open(self, host: str, port: int, timeout: float | None) -> Connection:
        if self._tasks is None:
            raise ConnectionLost("this environment is closed", may_have_run=False)
        assert self._identity is not None
        url = base_url(host, port)
        stream = await _connect(self._identity.key, host, port, timeout)
        try:
            link = await self._authenticate(stream, client=True)
        except HandshakeError:
            raise
        except ProtocolError as error:
            raise HandshakeError(
                f"what listens at {url} is no environment of this simulation"
            ) from error
        except (TimeoutError, OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            raise ConnectionLost(
                f"what listens at {url} did not answer", address=url, may_have_run=False
            ) from error
        assert link is not None
        tasks = self._tasks
        if tasks is None:
            link.abort()
            raise ConnectionLost("this environment is closed", may_have_run=False)
        self._links[url] = link
        tasks.start_soon(self._keep, link)
        return link


async def listen(host: str, port: int) -> SocketListener:
    """A listener on ``host`` and ``port`` (0 for any free one).

    Raises:
        StartError: The address cannot be had; the message says which and why.
    """
    try:
        if not 0 <= port < 1 << 16:  # getaddrinfo would take it for another
            raise OverflowError("a port is from 0 to 65535")
        place = _LOOPBACK.get(host, host)
        found = await anyio.getaddrinfo(place, port, type=socket.SOCK_STREAM)
        # One address of those that a name has, so that port 0 is one port.
        _, _, _, _, bound = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        multi = await anyio.create_tcp_listener(local_host=bound[0], local_port=bound[1])
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "the port is taken" if taken else str(error)
        raise StartError(f"cannot listen on {host}:{port}: {why}") from None
    return cast("SocketListener", multi.listeners[0])


async def _accept(listener: SocketListener) -> ByteStream:
    """The next connection.

    Raises:
        OSError: There can be none now.
    """
    try:
        stream: ByteStream = await listener.accept()
    except anyio.BrokenResourceError as error:  # anyio's word for any error at all
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise
    raw = stream.extra(SocketAttribute.raw_socket, None)
    return stream if raw is None else _connected(raw)


def _connected(raw: socket.socket | trio.socket.SocketType) -> ConnectedStream:
    """The same connection; whatever has ``raw`` is no longer to be used."""
    return ConnectedStream(socket.socket(raw.family, raw.type, raw.proto, raw.detach()))


async def _shake_hands(
    stream: ByteStream, handshake: Handshake, reader: FrameReader
) -> list[Frame]:
    """Prove each other's membership; returns frames that came right behind the proof."""
    while True:
        for data in handshake.data_to_send():
            await stream.send(data)
        if handshake.complete:
            return []
        frames = reader.receive_data(await stream.receive(HANDSHAKE_BYTES))
        while frames:
            handshake.receive(frames.pop(0))
            if handshake.complete:
                for data in handshake.data_to_send():
                    await stream.send(data)
                return frames


async def _dismiss(stream: ByteStream, handshake: Handshake) -> None:
    """Tell a peer why it is refused, if it listens, and close."""
    with anyio.move_on_after(DISMISS_SECONDS):
        try:
            for data in handshake.data_to_send():
                await stream.send(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # it is gone already
    await anyio.aclose_forcefully(stream)


async def _connect(key: bytes, host: str, port: int, timeout: float | None) -> ByteStream:
    url = base_url(host, port)
    limit = float("inf") if timeout is None else timeout
    give_up_at = anyio.current_time() + limit
    pause, longest = RETRY_SECONDS
    while True:
        near = connect_near(key, url)
        if near is not None:
            return near
        try:
            with anyio.fail_after(max(HANDSHAKE_SECONDS, 0 if timeout is None else timeout)):
                place = _LOOPBACK.get(host, host)
                # anyio's own forgets to close what is cancelled just as it is connected.
                return _connected((await trio.open_tcp_stream(place, port)).socket)
        except (OSError, TimeoutError) as error:
            # Nothing tells when somebody will listen there: asking again is the only way.
            if anyio.current_time() + pause > give_up_at:
                raise ConnectionLost(
                    f"nobody listens at {url}: {error}", address=url, may_have_run=False
                ) from None
        await anyio.sleep(pause)
        pause = min(2 * pause, longest)
