"""A host in the test process, under the supervisor that tests share, and raw clients of it."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from creamas_sc.reports import StopReport
from creamas_sc.rpc import fd_passing
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.exposed import Proxy
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.main_script import adopt_script, adopted_script
from creamas_sc.runtime.nurseries import split_cancellation
from creamas_sc.serializers import get_serializers, to_serializers
from creamas_sc.simulation_host import main as host_main
from creamas_sc.supervisor_client.messages import ActorExit
from creamas_sc.supervisor_client.spec import HostSpec, pack, unpack
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Kind, encode_frame
from tests.support.shared_supervisor import SharedSupervisor

BOUND_SECONDS = 30
ANY_PORT = ("localhost", 0)
NAME = "sim"
_ids = itertools.count(1)


def spec(**changes: Any) -> HostSpec:
    """A simulation of two slaves with nothing in them."""
    default: dict[str, Any] = {
        "name": NAME,
        "menv_cls": "creamas_sc.mp:MultiEnvironment",
        "addr": ANY_PORT,
        "env_cls": "creamas_sc.core.environment:Environment",
        "mgr_cls": "tests.support.agents:Host",
        "env_kwargs": {},
        "seed": None,
        "slave_addrs": [ANY_PORT] * 2,
        "slave_env_cls": "creamas_sc.core.environment:Environment",
        "slave_mgr_cls": "tests.support.agents:Manager",
        "slave_kwargs": None,
    }
    return HostSpec(**{**default, **changes})


class FakeControl:
    """The control that a supervisor gives to an entry."""

    def __init__(self, descriptor: int) -> None:
        self.descriptors: tuple[int, ...] = (descriptor,)
        self.is_ready = trio.Event()
        self.info = b""
        self._stop = trio.Event()
        self._payload = b""

    async def ready(self, info: bytes) -> None:
        """Note that the host is up."""
        await trio.lowlevel.checkpoint()
        self.info = info
        self.is_ready.set()

    async def wait_stop(self) -> bytes:
        """Wait for `ask_stop`."""
        await self._stop.wait()
        return self._payload

    def ask_stop(self, payload: bytes = b"") -> None:
        """Ask the host to stop."""
        self._payload = payload
        self._stop.set()


class Client:
    """A raw client of a host.

    Attributes:
        connection: Its connection.
    """

    types = (Proxy,)

    def __init__(self, sock: socket.socket) -> None:
        self.codec = Codec(to_serializers(get_serializers()), references=self)
        self.connection = Connection(ConnectedStream(sock), codec=self.codec, name="the host")

    def describe(self, obj: Any) -> tuple[str, str]:
        """Of the codec's references."""
        return obj.addr, obj.class_name

    def resolve(self, address: str, name: str) -> Any:
        """Of the codec's references."""
        return Proxy(self, address, name)

    async def call_agent(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a proxy needs."""
        payload = self.codec.encode((args, kwargs))
        return self.codec.decode(await self.connection.call(address, method, payload))

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Have the host carry out an operation."""
        payload = self.codec.encode((args, kwargs))
        return self.codec.decode(await self.connection.call(None, method, payload))


class ManagedSimulation:
    """A host that runs.

    Attributes:
        control: What it was started with.
        line: The supervisor's end of the host's line; its calls, such as ``describe``, go there.
        supervisor: Owns the slaves.
        ended: Set when the host's entry has ended; then there is an ``outcome`` or an ``error``.
    """

    control: FakeControl
    line: Connection
    supervisor: SharedSupervisor

    def __init__(self, nursery: trio.Nursery) -> None:
        self.ended = trio.Event()
        self.outcome: StopReport | None = None
        self.error: BaseException | None = None
        self.codec = Codec()
        self.scope = trio.CancelScope()
        self._nursery = nursery
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._handovers = trio.socket.from_stdlib_socket(self._ours)

    async def start(self, order: HostSpec) -> None:
        """Start the supervisor, then the host; does not wait until it is ready."""
        self.supervisor = SharedSupervisor(self._tell_exit)
        await self._nursery.start(self.supervisor.run)
        self.line = Connection(await self._hand("control"), self._serve, name="the host")
        self._nursery.start_soon(self.line.run)
        self.control = FakeControl(self._theirs.detach())
        self._nursery.start_soon(self._live, order)

    async def _live(self, order: HostSpec) -> None:
        try:
            with self.scope:
                self.outcome = unpack(await host_main.main(order.encode(), self.control))
        except BaseException as error:  # as a supervisor's actors do
            if split_cancellation(error)[1] is None:
                raise
            self.error = error
        finally:
            self.ended.set()

    async def ready(self) -> None:
        """Wait until it is ready, or has ended."""
        async with trio.open_nursery() as nursery:
            for event in (self.control.is_ready, self.ended):
                nursery.start_soon(_cancel_after, event, nursery.cancel_scope)

    def _tell_exit(self, event: ActorExit) -> None:
        self.line.post("exited", self.codec.encode(event))

    def _serve(self, request: Request) -> Awaitable[Payload]:
        return self._answer(request)

    async def _answer(self, request: Request) -> Payload:
        args, _ = self.codec.decode(request.payload)
        if request.method == "start":
            orders, _, code = args
            return self.codec.encode(await self.supervisor.start(orders, code))
        return self.codec.encode(await getattr(self.supervisor, request.method)(*args))

    async def _hand(self, kind: str, backlog: bytes = b"") -> ConnectedStream:
        ours, theirs = socket.socketpair()
        with theirs:
            await fd_passing.send(self._handovers, kind, "pid 1", backlog, theirs.fileno())
        return ConnectedStream(ours)

    async def describe(self) -> dict[str, Any]:
        """What the supervisor asks."""
        payload = self.codec.encode(((), {}))
        answer = await self.line.call(None, "describe", payload)
        description: dict[str, Any] = self.codec.decode(answer)
        return description

    async def hand_client(self, backlog: bytes = b"") -> socket.socket:
        """Hand over a client; its own end."""
        ours, theirs = socket.socketpair()
        with theirs:
            await fd_passing.send(self._handovers, "client", "pid 1", backlog, theirs.fileno())
        return ours

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client that has attached, its request handed over as the supervisor does."""
        codec = Codec()
        about = {"python": (3, 11), "script": None, "pid": os.getpid()}
        body = codec.encode(((NAME, about), {})).body
        attach = b"".join(encode_frame(Kind.REQUEST, 0, _attach_meta(), body))
        client = Client(await self.hand_client(attach))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.connection.run)
            try:
                await client("get_name")  # it is attached
                yield client
            finally:
                await client.connection.aclose()

    async def aclose(self) -> None:
        """End all that is left."""
        self.scope.cancel()
        with trio.CancelScope(shield=True):
            await self.ended.wait()
            await self.line.aclose()
            await self.supervisor.aclose()
        self._handovers.close()


def _attach_meta() -> bytes:
    import msgpack

    meta: bytes = msgpack.packb((None, "attach", None))
    return meta


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def hosting(
    order: HostSpec | None = None, *, wait: bool = True
) -> AsyncIterator[ManagedSimulation]:
    """A host of ``order``; the block is bounded.

    Args:
        wait: Until it is ready; what its start raised is raised here.
    """
    with trio.fail_after(BOUND_SECONDS), _as_a_guest():
        async with trio.open_nursery() as nursery:
            hosted = ManagedSimulation(nursery)
            await hosted.start(order or spec())
            try:
                if wait:
                    await hosted.ready()
                    if hosted.error is not None:
                        raise hosted.error
                yield hosted
            finally:
                await hosted.aclose()


@contextmanager
def _as_a_guest() -> Iterator[None]:
    """In a process that is not the host's own: it keeps its script, and no alarm may end it."""
    script, exit_seconds = adopted_script(), host_main.EXIT_SECONDS
    host_main.EXIT_SECONDS = 10 * BOUND_SECONDS
    try:
        yield
    finally:
        adopt_script(script)
        host_main.EXIT_SECONDS = exit_seconds


def stop_payload(folder: str | None, grace: float) -> bytes:
    """What a supervisor sends with its request."""
    return pack((folder, grace))
