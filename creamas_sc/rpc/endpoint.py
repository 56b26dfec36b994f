"""An environment's place on the network: its listeners, and one connection to each peer.

    accepted --+                      +--> Connection.run, until it ends
               +--> handshake --------+
    opened ----+    (bounded)         +--> refused: the peer is told why, and it is logged once

There is at most one connection that is *used* for each peer: the one in ``_links``. If two
environments connect to each other at the same moment, both connections work, and each end calls on
the one that it knows. Opening is serialized for each address, so many callers share one attempt.

Everything runs in the nursery of `Endpoint.run`: when that returns, the listeners, the connections
and their tasks are gone.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
import socket
from collections.abc import Callable

import anyio
import trio
from anyio.abc import ByteStream, TaskStatus

from creamas_sc.errors import ConnectionLost, HandshakeError, ProtocolError, StartError
from creamas_sc.rpc.accepting import accept
from creamas_sc.rpc.calls import served_call
from creamas_sc.rpc.connection import Connection, Handler, perform_handshake
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.rpc.unix_shortcut import connect_nearby, listen_nearby
from creamas_sc.runtime.coroutines import backoff
from creamas_sc.runtime.timeouts import HANDSHAKE_SECONDS
from creamas_sc.runtime.validation import check_kind
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.handshake import Handshake, Identity

log = logging.getLogger(__name__)

# How long to wait for a peer that has accepted: it may be busy with an act and answers after that.
ANSWER_SECONDS = 60.0
MAX_CONNECTIONS = 1024
# "localhost" means this machine everywhere (RFC 6761). A lookup would take a thread, and would load
# the system's resolver in every process.
_LOOPBACK = {"localhost": "127.0.0.1"}


def base_url(host: str, port: int) -> str:
    """``tcp://host:port/``, to which an agent's number is appended."""
    return f"tcp://[{host}]:{port}/" if ":" in host else f"tcp://{host}:{port}/"


def split_address(address: str) -> tuple[str, int, int]:
    """Host, port and agent number of ``tcp://host:port/number``.

    Raises:
        ValueError: The address is not of that form.
    """
    check_kind("addr", address, str)
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
        on_event: Called with each event: connection, name, payload.
        on_link: Called with each connection once its peer is known, before anything is read.
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
        self._identity: Identity
        self._links: dict[str, Connection] = {}
        self._opening: dict[str, anyio.Lock] = {}
        self._accepted = 0
        self._tasks: trio.Nursery | None = None
        self._ended = trio.Event()

    async def run(
        self,
        listener: trio.SocketListener,
        identity: Identity,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and keep connections until cancelled or `aclose` is called."""
        self._identity = identity
        nearby = listen_nearby(identity.key, identity.address)
        listeners = [listener] if nearby is None else [listener, nearby]
        try:
            async with trio.open_nursery() as tasks:
                self._tasks = tasks
                task_status.started()
                for each in listeners:
                    tasks.start_soon(self._accept_all, each, tasks)
        finally:
            for each in listeners:
                each.socket.close()
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
            if self._tasks is not None:
                self._tasks.cancel_scope.cancel()
                if served_call.get() is None:
                    await self._ended.wait()

    def drop(self, url: str) -> None:
        """End the connection to a peer that is gone, if it has not noticed yet."""
        link = self._links.pop(url, None)
        if link is not None:
            link.abort()

    # ---- connections

    async def _accept_all(self, listener: trio.SocketListener, tasks: trio.Nursery) -> None:
        while (accepted := await accept(listener)) is not None:
            if self._accepted >= MAX_CONNECTIONS:
                log.warning("refused a connection: %d are open", MAX_CONNECTIONS)
                accepted.socket.close()
            else:
                self._accepted += 1
                tasks.start_soon(self._welcome, ConnectedStream.adopt(accepted))

    async def _welcome(self, stream: ConnectedStream) -> None:
        """Let a peer in that has proved itself, until its connection ends."""
        try:
            link = await self._authenticate(stream, client=False)
        except (HandshakeError, ProtocolError, TimeoutError, OSError, anyio.EndOfStream,
                anyio.BrokenResourceError) as error:  # fmt: skip
            # A peer that was killed in the middle of it is reported elsewhere.
            gone = isinstance(error, (anyio.EndOfStream, anyio.BrokenResourceError))
            level = logging.INFO if gone else logging.WARNING
            log.log(level, "refused a connection: %s", str(error) or type(error).__name__)
        else:
            await self._keep(link)
        finally:
            self._accepted -= 1

    async def _authenticate(self, stream: ByteStream, *, client: bool) -> Connection:
        """A connection whose peer has proved itself; an error closes the stream."""
        handshake = Handshake(self._identity, client=client)
        with anyio.fail_after(ANSWER_SECONDS if client else HANDSHAKE_SECONDS):
            await perform_handshake(stream, handshake)
        peer = handshake.peer
        link = Connection(
            stream,
            self._serve,
            codec=self._codec,
            on_event=lambda name, payload: self._on_event(link, name, payload),
            name=peer.address,
        )
        known = self._links.get(peer.address)
        if known is None or not known.alive:
            # Calls to the peer go out on the connection that it has opened.
            self._links[peer.address] = link
        self._on_link(link, peer)
        return link

    async def _keep(self, link: Connection) -> None:
        """Run a connection to its end, and forget it: peers come and go."""
        try:
            await link.run()
        finally:
            for url in [url for url, each in self._links.items() if each is link]:
                del self._links[url]

    # ---- outgoing

    def link(self, url: str) -> Connection | None:
        """The connection to the environment of that `base_url`, if it is open."""
        link = self._links.get(url)
        return link if link is not None and link.protocol.alive else None

    async def connection(self, url: str, *, timeout: float | None = 0) -> Connection:
        """The connection to the environment of that `base_url`, opened if need be.

        Args:
            timeout: Seconds to keep trying while nothing listens there; 0 for one attempt, None
                for no limit.

        Raises:
            ConnectionLost: Nothing listens there.
            HandshakeError: What listens there is not of this simulation.
        """
        link = self.link(url)
        if link is not None:
            return link
        lock = self._opening.setdefault(url, anyio.Lock())
        try:
            async with lock:
                return self.link(url) or await self._open(url, timeout)
        finally:
            if not lock.statistics().locked:  # no other task waits: the next one makes a new one
                self._opening.pop(url, None)

    async def _open(self, url: str, timeout: float | None) -> Connection:
        closed = ConnectionLost("this environment is closed", may_have_run=False)
        if self._tasks is None:
            raise closed
        stream = await _connect(self._identity.key, url, timeout)
        try:
            link = await self._authenticate(stream, client=True)
        except HandshakeError:
            raise
        except ProtocolError as error:
            raise HandshakeError(
                f"what listens at {url} is not an environment of this simulation"
            ) from error
        except (TimeoutError, OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            raise ConnectionLost(
                f"what listens at {url} did not answer", address=url, may_have_run=False
            ) from error
        if self._tasks is None:
            link.abort()
            raise closed
        self._links[url] = link
        self._tasks.start_soon(self._keep, link)
        return link


async def listen(host: str, port: int) -> trio.SocketListener:
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
        (listener,) = await trio.open_tcp_listeners(bound[1], host=bound[0])
        return listener
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "the port is taken" if taken else str(error)
        raise StartError(f"cannot listen on {host}:{port}: {why}") from None


async def _connect(key: bytes, url: str, timeout: float | None) -> ByteStream:
    host, port, _ = split_address(f"{url}0")
    give_up_at = anyio.current_time() + (math.inf if timeout is None else timeout)
    for pause in backoff():
        nearby = connect_nearby(key, url)
        if nearby is not None:
            return nearby
        try:
            with anyio.fail_after(max(HANDSHAKE_SECONDS, 0 if timeout is None else timeout)):
                place = _LOOPBACK.get(host, host)
                # anyio's own does not close what is cancelled just as it is connected.
                return ConnectedStream.adopt(await trio.open_tcp_stream(place, port))
        except (OSError, TimeoutError) as error:
            # Nothing tells when something will listen there: asking again is the only way.
            if anyio.current_time() + pause > give_up_at:
                raise ConnectionLost(
                    f"nothing listens at {url}: {error}", address=url, may_have_run=False
                ) from None
        await anyio.sleep(pause)
    raise AssertionError("there is always another pause")
