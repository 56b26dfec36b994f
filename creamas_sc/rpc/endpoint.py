"""An environment's place on the network: its listeners, and one connection to each peer.

Environments of one machine connect over unix sockets in their user's folder, where the kernel says
whose process is at the other end. Other machines' connect over TCP, where all that follows the
handshake travels in sealed records::

    accepted --+                      +--> Connection.run, until it ends
               +--> handshake --------+
    opened ----+    (bounded)         +--> refused: the peer is told why, and it is logged once

An environment's address stays what it is when its slave is started again on another machine: then
its peers have a *route* to where it listens now. What was there before may still run, on a machine
that is cut off; they end their connections to it and refuse it, by its lower generation.

There is at most one connection that is *used* for each peer: the one in ``_links``. If two
environments connect to each other at the same moment, both connections work, and each end calls on
the one that it knows. Opening is serialized for each address, so many callers share one attempt.

Everything runs in the nursery of `Endpoint.run`: when that returns, the listeners, the connections
and their tasks are gone.
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, closing

import anyio
import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import ConnectionLost, HandshakeError, ProtocolError
from creamas_sc.rpc.accepting import RefusalLog, Strangers, accept, keep_listening
from creamas_sc.rpc.addresses import (
    Port,
    base_url,
    is_loopback,
    is_wildcard,
    resolve,
    split_address,
)
from creamas_sc.rpc.calls import served_call
from creamas_sc.rpc.connection import Connection, Handler, perform_handshake
from creamas_sc.rpc.routes import Route, Routes
from creamas_sc.rpc.sealed_stream import SealedStream
from creamas_sc.rpc.socket_folder import SocketFolder, remove_abandoned_folders
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.coroutines import backoff
from creamas_sc.runtime.timeouts import HANDSHAKE_SECONDS
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.handshake import Handshake, Identity

log = logging.getLogger(__name__)

# How long to wait for a peer that has accepted: it may be busy with an act and answers after that.
ANSWER_SECONDS = 60.0
# How many may be open.
MAX_CONNECTIONS = 1024
# Between two looks at whether the machine at the other end answers.
WATCH_SECONDS = 2.0


class Endpoint:
    """Listens for peers of the same simulation and connects to them.

    Args:
        serve: Answers the calls of every connection.
        codec: Carries their errors.
        on_event: Called with each event: connection, name, payload.
        on_link: Called with each connection once its peer is known, before anything is read.
        on_end: Called when a connection has ended.

    Attributes:
        ended: Set when `run` is over.
        place: Host and port at which it listens.
        routes: Where other environments listen that have moved or are lost, by `base_url`.
    """

    place: tuple[str, int] = ("", 0)

    def __init__(
        self,
        serve: Handler,
        codec: Codec,
        on_event: Callable[[Connection, str, Payload], None],
        on_link: Callable[[Connection, Identity], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._serve = serve
        self._codec = codec
        self._on_event = on_event
        self._on_link = on_link
        self._on_end = on_end
        self._identity: Identity
        self._links: dict[str, Connection] = {}
        self._peers: dict[Connection, Identity] = {}
        self._opening: dict[str, anyio.Lock] = {}
        self._trying: dict[str, anyio.CancelScope] = {}
        self._accepted = 0
        self._strangers = Strangers()  # on TCP
        self._refusals = RefusalLog(log)
        self._folder: SocketFolder | None = None
        self._tasks: trio.Nursery | None = None
        self.routes = Routes()
        self.ended = trio.Event()

    async def run(
        self,
        port: Port,
        identity: Identity,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and keep connections until cancelled or `aclose` is called.

        Raises:
            StartError: The environment's unix socket cannot be made.
            CreamasError: The user's runtime folder is not usable.
        """
        self._identity, self.place = identity, (port.host, port.number)
        with ExitStack() as held:
            held.callback(port.close)
            if identity.role != "slave":
                remove_abandoned_folders()
            folder = held.enter_context(closing(SocketFolder(identity.simulation)))
            listener = folder.listen(port.number)
            self._folder = folder
            async with trio.open_nursery() as tasks:
                self._tasks = tasks
                held.callback(self._forget)
                task_status.started()
                if port.listener is not None:
                    tasks.start_soon(self._accept_all, port.listener, tasks)
                await keep_listening(
                    listener,
                    lambda listener: self._accept_all(listener, tasks),
                    lambda: folder.in_place(port.number),
                    lambda: folder.listen(port.number),
                )

    def _forget(self) -> None:
        self._tasks = None
        self._links.clear()
        self._refusals.close()
        self.ended.set()

    async def aclose(self) -> None:
        """Write out what is queued, close everything and wait until it is closed."""
        if self._tasks is None:
            return
        # All of it is bounded: a cancelled close still closes.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as endings:
                for link in list(self._links.values()):
                    endings.start_soon(link.aclose)
            if self._tasks is not None:
                self._tasks.cancel_scope.cancel()
                if served_call.get() is None:
                    await self.ended.wait()

    async def listens(self, url: str) -> bool:
        """Whether the environment of that `base_url` listens; True if that cannot be known."""
        if self._folder is None or self.ended.is_set():
            return True
        try:
            await (
                await self._try(self._folder, *self.routes.place(url), HANDSHAKE_SECONDS)
            ).aclose()
        except (OSError, TimeoutError) as error:
            # Trio has a group as the cause. Otherwise many wait to be accepted, or there is no way
            # to its machine.
            refusals = (FileNotFoundError, ConnectionRefusedError)
            reasons = [error, *getattr(error.__cause__, "exceptions", ())]
            return not any(isinstance(each, refusals) for each in reasons)
        return True

    def move(self, routes: Mapping[str, Route]) -> None:
        """Note where environments listen from now on, and have done with what was there before."""
        for url, route in routes.items():
            if self.routes.get(url) != route:
                self.routes[url] = route
                # Where it was nobody may answer, not even with a refusal.
                if url in self._trying:
                    self._trying[url].cancel()
                self.drop(url, route.generation)

    def drop(self, url: str, generation: float = math.inf) -> None:
        """End all connections to a peer that is gone, if it has not noticed yet.

        Args:
            generation: Only to those of lower ones.
        """
        links = [link for link, peer in self._peers.items() if peer.address == url]
        links += [link for link in [self._links.get(url)] if link is not None]  # by another name
        for link in links:
            if self._peers[link].generation < generation:
                link.abort()
                if self._links.get(url) is link:
                    del self._links[url]

    # ---- connections

    async def _accept_all(self, listener: trio.SocketListener, tasks: trio.Nursery) -> None:
        while (accepted := await accept(listener)) is not None:
            stream = ConnectedStream.adopt(accepted)
            async with AsyncExitStack() as refused:
                refused.push_async_callback(anyio.aclose_forcefully, stream)
                if (reason := self._unwelcome(stream)) is not None:
                    self._refusals.add(logging.WARNING, reason)
                    continue
                proving = trio.CancelScope() if stream.local else await self._strangers.admit()
                refused.pop_all()
                self._accepted += 1
                tasks.start_soon(self._welcome, stream, proving)

    def _unwelcome(self, stream: ConnectedStream) -> str | None:
        """Why not even to listen to who has connected."""
        if self._accepted >= MAX_CONNECTIONS:
            return f"{MAX_CONNECTIONS} are open"
        return stream.stranger()

    async def _welcome(self, stream: ConnectedStream, proving: trio.CancelScope) -> None:
        """Let a peer in that has proved itself, until its connection ends.

        Args:
            proving: Cancelled if it must go before that.
        """
        handshake = Handshake(self._identity, client=False, discreet=not stream.local)
        try:
            with proving:
                try:
                    link = await self._authenticate(stream, handshake)
                finally:
                    self._strangers.leave(proving)
            if proving.cancelled_caught:
                raise Strangers.refusal()
        except (HandshakeError, ProtocolError, TimeoutError, OSError, anyio.EndOfStream,
                anyio.BrokenResourceError) as error:  # fmt: skip
            # A peer that was killed in the middle of it is reported elsewhere.
            gone = isinstance(error, (anyio.EndOfStream, anyio.BrokenResourceError))
            level = logging.INFO if gone else logging.WARNING
            self._refusals.add(level, str(error) or type(error).__name__)
        else:
            await self._keep(link)
        finally:
            self._accepted -= 1

    async def _authenticate(
        self, stream: ConnectedStream, handshake: Handshake, seconds: float = HANDSHAKE_SECONDS
    ) -> Connection:
        """A connection whose peer has proved itself; an error closes the stream."""
        with anyio.fail_after(seconds):
            await perform_handshake(stream, handshake)
        peer = handshake.peer
        try:
            self.routes.check(peer)
        except ConnectionLost:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)
            raise
        link = Connection(
            stream if stream.local else SealedStream(stream, handshake.record_keys()),
            self._serve,
            codec=self._codec,
            on_event=lambda name, payload: self._on_event(link, name, payload),
            name=peer.address,
        )
        self._peers[link] = peer
        known = self._links.get(peer.address)
        if known is None or not known.alive:
            # Calls to the peer go out on the connection that it has opened.
            self._links[peer.address] = link
        if self._tasks is not None and not stream.local:
            self._tasks.start_soon(_end_unheard, stream, link)
        self._on_link(link, peer)
        return link

    async def _keep(self, link: Connection) -> None:
        """Run a connection to its end, and forget it: peers come and go."""
        try:
            await link.run()
        finally:
            del self._peers[link]
            for url in [url for url, each in self._links.items() if each is link]:
                del self._links[url]
            self._on_end()

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
        if self._tasks is None or self._folder is None:
            raise closed
        port = split_address(f"{url}0")[1]
        stream = await self._connect(self._folder, url, timeout)
        # Hosts have several names, and an environment knows one of them: the port tells them apart.
        handshake = Handshake(
            self._identity, client=True, accepts=lambda address: address.endswith(f":{port}/")
        )
        try:
            link = await self._authenticate(stream, handshake, ANSWER_SECONDS)
        except (HandshakeError, ConnectionLost):
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
            await self._keep(link)  # which closes it
            raise closed
        self._links[url] = link
        self._tasks.start_soon(self._keep, link)
        return link

    async def _connect(
        self, folder: SocketFolder, url: str, timeout: float | None
    ) -> ConnectedStream:
        began = anyio.current_time()
        give_up_at = began + (math.inf if timeout is None else timeout)
        seconds = max(HANDSHAKE_SECONDS, 0 if timeout is None else timeout)
        for pause in backoff():
            host, port = self.routes.place(url)
            try:
                with anyio.CancelScope() as scope:
                    self._trying[url] = scope
                    return await self._try(folder, host, port, seconds)
                continue  # it listens elsewhere now
            except HandshakeError:
                raise
            except (OSError, TimeoutError) as error:
                if isinstance(error, BlockingIOError):  # it listens, and many wait there
                    give_up_at = max(give_up_at, began + HANDSHAKE_SECONDS)
                # Nothing tells when something will listen there: asking again is the only way.
                if anyio.current_time() + pause > give_up_at:
                    raise ConnectionLost(
                        f"nothing listens at {base_url(host, port)}: {error}",
                        address=url,
                        may_have_run=False,
                    ) from None
            finally:
                self._trying.pop(url, None)
            await anyio.sleep(pause)
        raise AssertionError("there is always another pause")

    async def _try(
        self, folder: SocketFolder, host: str, port: int, seconds: float
    ) -> ConnectedStream:
        """Try once to connect, within ``seconds``.

        Raises:
            OSError, TimeoutError: It cannot be done.
            HandshakeError: Somebody else listens there.
        """
        if is_loopback(host) or host == self.place[0]:
            try:
                return _adopt(folder.connect(port), base_url(host, port))
            except FileNotFoundError:
                # Batch systems give each job on a machine a runtime folder of its own.
                if is_loopback(host) or is_wildcard(host):
                    raise
        with anyio.fail_after(seconds):
            _, place = await resolve(host, port)
            # anyio's own does not close what is cancelled just as it is connected.
            return ConnectedStream.adopt(await trio.open_tcp_stream(place[0], place[1]))


async def _end_unheard(stream: ConnectedStream, link: Connection) -> None:
    """End a connection to a machine that is cut off or has crashed."""
    while link.alive:
        if stream.is_unheard():
            log.warning("ended the connection to %s: its machine does not answer", link.name)
            link.abort()
        await trio.sleep(WATCH_SECONDS)


def _adopt(sock: socket.socket, url: str) -> ConnectedStream:
    stream = ConnectedStream(sock, large=True)
    if (who := stream.stranger()) is not None:
        sock.close()
        raise HandshakeError(f"{who} listens at {url}")
    return stream
