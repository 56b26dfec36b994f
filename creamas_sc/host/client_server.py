"""Where a simulation's clients are served: a connection each, handed over by the supervisor."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

import trio

from creamas_sc.errors import BadArguments, CallRefused, ProtocolError, UnknownSimulation
from creamas_sc.host.concurrency_limit import Turns
from creamas_sc.host.simulation import HostedSimulation
from creamas_sc.rpc.connection import Answer, Connection, Handler, Request
from creamas_sc.rpc.fd_passing import CLIENT, Handed, receive
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.class_loading import MainScript
from creamas_sc.runtime.log_setup import bound
from creamas_sc.simulation_api import OPERATIONS
from creamas_sc.wire.codec import Codec, Payload, is_call, payload_size
from creamas_sc.wire.frames import FrameReader

__all__ = ["ClientServer"]

log = logging.getLogger(__name__)

MAX_CLIENTS = 1024
# Of one client: calls in flight, and what waits for it to read its answers.
MAX_CALLS = 1000
MAX_UNREAD_BYTES = 256 << 20
# What one that is turned away has to take the reason, in seconds.
DISMISS_SECONDS = 1.0


class ClientServer:
    """Serves whoever is handed over, each for itself: what happens to one concerns no other."""

    def __init__(self, simulation: HostedSimulation) -> None:
        self._simulation = simulation
        self._numbers = itertools.count(1)
        self._connections: set[Connection] = set()

    async def run(self, handovers: trio.socket.SocketType) -> None:
        """Serve clients until cancelled."""
        async with trio.open_nursery() as nursery:
            while (handed := await receive(handovers)) is not None:
                if handed.kind != CLIENT:
                    log.warning("a connection of kind %r was handed over", handed.kind)
                    handed.sock.close()
                    continue
                nursery.start_soon(self._welcome, handed)

    async def _welcome(self, handed: Handed) -> None:
        simulation = self._simulation
        if simulation.closing.asked.is_set():
            await _dismiss(handed, f"the simulation {simulation.name!r} is closing")
        elif simulation.clients >= MAX_CLIENTS:
            log.warning("refused a client (%s): %d are attached", handed.note, MAX_CLIENTS)
            reason = f"the simulation {simulation.name!r} has {MAX_CLIENTS} clients already"
            await _dismiss(handed, reason)
        else:
            simulation.clients += 1
            try:
                await self._serve(f"c{next(self._numbers)}", handed)
            finally:
                simulation.clients -= 1

    async def _serve(self, name: str, handed: Handed) -> None:
        client = _Client(self._simulation, name)
        connection = _connection(handed, client.serve, self._simulation.codec)
        if connection is None:
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            log.debug("client %s (%s) has gone after %d calls", name, handed.note, client.calls)

    async def aclose(self) -> None:
        """Write out what is queued for each client, within a bound, and end the connections."""
        async with trio.open_nursery() as nursery:
            for connection in list(self._connections):
                nursery.start_soon(connection.aclose)


class _Client:
    """One client's calls."""

    def __init__(self, simulation: HostedSimulation, name: str) -> None:
        self.calls = 0
        self._turns = Turns()
        self._simulation = simulation
        self._name = name

    def serve(self, request: Request) -> Answer:
        """Answer a call: at once where that can be."""
        self.calls += 1
        number = f"{self._name}-{self.calls}"
        with bound(request=number):
            answer = self._begin(request)
        return answer if isinstance(answer, Payload) else self._finish(number, request, answer)

    def _begin(self, request: Request) -> Payload | Awaitable[Any]:
        simulation, target, method = self._simulation, request.target, request.method
        if isinstance(target, str):
            return self._relay(target, request)
        if target is not None:
            raise CallRefused(f"{target!r} is not an agent's address")
        args, kwargs = self._arguments(request)
        if method == "attach":
            return simulation.encode(self._attach(*args, **kwargs), method)
        operation = OPERATIONS.get(method)
        if operation is None:
            raise CallRefused(f"a simulation has no operation {method!r}")
        result = simulation.begin(operation, args, kwargs)
        return result if isawaitable(result) else simulation.encode(result, method)

    async def _relay(self, target: str, request: Request) -> Payload:
        await self._turns.begin(request.connection)
        size = 0
        try:
            answer = await self._simulation.relay(target, request.method, request.payload)
            size = payload_size(answer)
            return answer
        finally:
            self._turns.end(size)

    def _arguments(self, request: Request) -> tuple[tuple[Any, ...], dict[str, Any]]:
        value = self._simulation.decode(request.payload)
        if not is_call(value):
            raise BadArguments(f"{request.method}: expected (args, kwargs)")
        return value  # type: ignore[no-any-return]

    async def _finish(self, number: str, request: Request, answer: Awaitable[Any]) -> Payload:
        with bound(request=number):
            result = await self._simulation.finish(answer)
            if isinstance(request.target, str):
                return result  # type: ignore[no-any-return]
            return self._simulation.encode(result, request.method)

    def _attach(self, name: Any = None, about: Any = None, *_: Any, **__: Any) -> dict[str, Any]:
        simulation = self._simulation
        if name != simulation.name:
            raise UnknownSimulation(f"this is {simulation.name!r}, not {name!r}")
        log.debug("client %s attached: %r", self._name, about)
        script = MainScript.of_this_process()
        return {
            "name": simulation.name,
            "pid": simulation.pid,
            "python": sys.version_info[:2],
            "script": None if script is None else script.file,
            "progress": simulation.progress(),
        }


def _connection(handed: Handed, serve: Handler, codec: Codec | None) -> Connection | None:
    """The connection that goes on where the supervisor left off; None of one that broke off."""
    reader = FrameReader()
    try:
        backlog = reader.receive_data(handed.backlog)
    except ProtocolError as error:
        log.warning("closing the connection to %s: %s", handed.note, error)
        handed.sock.close()
        return None
    return Connection(
        ConnectedStream(handed.sock),
        serve,
        codec=codec,
        reader=reader,
        backlog=backlog,
        name=f"the client {handed.note}",
        max_calls=MAX_CALLS,
        max_unread_bytes=MAX_UNREAD_BYTES,
    )


async def _dismiss(handed: Handed, reason: str) -> None:
    """Answer the first call with the reason, and end the connection."""

    def refuse(_: Request) -> Answer:
        refused.set()
        raise CallRefused(reason)

    refused = trio.Event()
    connection = _connection(handed, refuse, None)
    if connection is None:
        return
    with trio.move_on_after(DISMISS_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            await refused.wait()
            await connection.aclose()
