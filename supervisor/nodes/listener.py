"""Lets nodes in, over the network.

    accepted --not too many--> TLS, handshake (`channel`) --> `JoinedNode.run`, until it ends

Who has not proved to hold the key learns nothing and is given little time and room. What went wrong
with one connection, even here, is of that one alone.
"""

from __future__ import annotations

import logging

import anyio
import trio

from creamas_sc.errors import BadValue, CreamasError, StartError
from creamas_sc.foreign import printable
from creamas_sc.rpc.accepting import RefusalLog, Strangers, accept
from creamas_sc.rpc.addresses import resolve
from creamas_sc.runtime.validation import check_place, check_seconds
from creamas_sc.supervisor_client.messages import NodeSettings
from creamas_sc.supervisor_client.node_key import KEY_BYTES
from supervisor.nodes import channel
from supervisor.nodes.joined_node import JoinedNode
from supervisor.nodes.registry import MAX_NODES, NodeRegistry

log = logging.getLogger(__name__)

# Nodes, those that join again while they are still thought to be there, and strangers.
MAX_CONNECTIONS = 2 * MAX_NODES
# How a connection may fail before its node has joined.
_GONE = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class NodeListener:
    """Listens for nodes.

    Attributes:
        address: Host and port.
        key, key_file: As of `NodeSettings`; an empty file for none.
    """

    def __init__(
        self,
        listener: trio.SocketListener,
        settings: NodeSettings,
        certificate: channel.Certificate,
        registry: NodeRegistry,
    ) -> None:
        self.address: tuple[str, int] = (settings["host"], listener.socket.getsockname()[1])
        self.key, self.key_file = settings["key"], settings.get("key_file", "")
        self._listener = listener
        self._lease = settings["lease"]
        self._certificate = certificate
        self._registry = registry
        self._strangers = Strangers()
        self._refusals = RefusalLog(log)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @classmethod
    async def open(cls, settings: NodeSettings, registry: NodeRegistry) -> NodeListener:
        """Begin to listen.

        Raises:
            BadValue: A setting is not valid.
            StartError: There can be no listener there, or something is not installed.
        """
        host, port = check_place((settings["host"], settings["port"]), "nodes")
        check_seconds(settings["lease"], "lease", endless=False)
        if len(settings["key"]) != KEY_BYTES:
            raise BadValue(f"a key of nodes has {KEY_BYTES} bytes, not {len(settings['key'])}")
        certificate = channel.new_certificate()
        try:
            family, place = await resolve(host, port)
            sock = trio.socket.socket(family)
            try:
                sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
                await sock.bind(place)
                sock.listen()
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            why = error.strerror or error
            raise StartError(f"cannot listen for nodes at {host}:{port}: {why}") from error
        self = cls(trio.SocketListener(sock), settings, certificate, registry)
        log.info("listening for nodes at %s:%d", *self.address)
        return self

    async def run(self) -> None:
        """Let nodes in, and keep them, until `aclose`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nodes:
                    while (stream := await accept(self._listener)) is not None:
                        if len(nodes.child_tasks) >= MAX_CONNECTIONS:
                            self._refusals.add(logging.WARNING, f"{MAX_CONNECTIONS} are open")
                            await trio.aclose_forcefully(stream)
                            continue
                        try:
                            proving = await self._strangers.admit()
                        except trio.Cancelled:
                            stream.socket.close()
                            raise
                        nodes.start_soon(self._handle, stream, proving)
        finally:
            self._listener.socket.close()
            self._refusals.close()
            self._ended.set()

    async def aclose(self) -> None:
        """Let no more nodes in, and end the connections of those that are here."""
        self._scope.cancel()
        await self._ended.wait()

    async def _handle(self, stream: trio.SocketStream, proving: trio.CancelScope) -> None:
        peer = "an address that is gone"
        try:
            try:
                with proving:
                    host, port, *_ = stream.socket.getpeername()
                    peer = f"{host}:{port}"
                    proved = await channel.accept(stream, self._certificate, self.key)
            finally:
                self._strangers.leave(proving)
            if proving.cancelled_caught:
                raise Strangers.refusal()
            await JoinedNode(proved, self._registry, self._lease, peer).run()
        except (CreamasError, TimeoutError, *_GONE) as error:
            gone = isinstance(error, _GONE) and not isinstance(error, CreamasError)
            why = str(error) or type(error).__name__
            self._refusals.add(logging.INFO if gone else logging.WARNING, printable(why), peer)
        except Exception:  # of this connection alone: the supervisor and other nodes go on
            log.exception("serving the node at %s failed", peer)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
