"""Serves a simulation's clients, each over a connection that the supervisor hands over."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

import trio

from creamas_sc.errors import (
    AgentError,
    BadArguments,
    CallRefused,
    ConnectionLost,
    EncodeError,
    ProtocolError,
    UnknownSimulation,
)
from creamas_sc.rpc.connection import Answer, Connection, Request
from creamas_sc.rpc.fd_passing import CLIENT, Handed, receive
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.log_setup import bound
from creamas_sc.runtime.main_script import MainScript
from creamas_sc.simulation_api import OPERATIONS
from creamas_sc.simulation_host.error_boundary import error_boundary
from creamas_sc.simulation_host.hosted_simulation import HostedSimulation
from creamas_sc.wire.codec import Payload, payload_size
from creamas_sc.wire.frames import FrameReader
from creamas_sc.wire.packing import is_call

log = logging.getLogger(__name__)

MAX_CLIENTS = 1024
# Of one client: calls in flight, and bytes of answers that it has not read yet.
MAX_CALLS = 1000
MAX_UNREAD_BYTES = 256 << 20
# What a client can do whose answer is too large for a message.
_LESS_AT_ONCE = {
    "get_artifacts": "ask for some at a time, with since and limit",
    "trigger_all": "all agents have acted; publish artifacts, or return less from act",
    "trigger_all_within": "agents have acted; publish artifacts, or return less from act",
}
# How long a refused client may take to call, and to receive the reason.
REFUSE_SECONDS = 1.0
# Calls to agents of one client: see `ConcurrencyLimit`.
FEW = 4
LARGE_BYTES = 1 << 18
# After so long without the end of a call, the running calls may be waiting for queued ones.
STUCK_SECONDS = 0.1


class ClientServer:
    """Serves the clients that are handed over; what happens to one does not affect the others."""

    def __init__(self, simulation: HostedSimulation) -> None:
        self._simulation = simulation
        self._numbers = itertools.count(1)

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
        """Go on where the supervisor left off reading: serve a client, or refuse its calls."""
        simulation, reader = self._simulation, FrameReader()
        try:
            backlog = reader.receive_data(handed.backlog)
        except ProtocolError as error:
            log.warning("closing the connection to %s: %s", handed.note, error)
            handed.sock.close()
            return
        refusal = ""
        if simulation.shutdown.requested.is_set():
            refusal = f"the simulation {simulation.name!r} is closing"
        elif len(simulation.clients) >= MAX_CLIENTS:
            log.warning("refused a client (%s): %d are attached", handed.note, MAX_CLIENTS)
            refusal = f"the simulation {simulation.name!r} has {MAX_CLIENTS} clients already"

        def refuse(_: Request) -> Answer:
            raise CallRefused(refusal)

        session = ClientSession(simulation, f"c{next(self._numbers)}")
        connection = Connection(
            ConnectedStream(handed.sock),
            refuse if refusal else session.handle,
            codec=simulation.network.codec,
            reader=reader,
            backlog=backlog,
            name=f"the client {handed.note}",
            max_calls=MAX_CALLS,
            max_unread_bytes=MAX_UNREAD_BYTES,
        )
        if refusal:
            with trio.move_on_after(REFUSE_SECONDS):
                await connection.run()
            return
        simulation.clients.add(connection)
        try:
            await connection.run()
        finally:
            simulation.clients.discard(connection)
            log.debug("%s (%s) has gone after %d calls", session, handed.note, session.calls)

    async def aclose(self) -> None:
        """Write out what is queued for each client, within a bound, and end the connections."""
        async with trio.open_nursery() as nursery:
            for connection in list(self._simulation.clients):
                nursery.start_soon(connection.aclose)


class ConcurrencyLimit:
    """How many of a client's calls to agents run at once: adaptive, to bound memory.

    The size of an answer is not known before it arrives, and then it has to be kept until the
    client reads it. So no call begins while answers wait to be read. The limit starts low, grows by
    one with each small answer, and falls back to the start with a large one. Calls may wait for
    each other: if none ends for a while, the limit is doubled, so that those which wait get a
    chance to run.
    """

    def __init__(self) -> None:
        self._limit = FEW
        self._running = 0
        self._ended = trio.lowlevel.ParkingLot()
        self._queue = trio.Lock()

    async def acquire(self, connection: Connection) -> None:
        """Wait until a call may begin, in order; `release` it when it has ended."""
        if not self._queue.locked() and self._free(connection):
            self._running += 1
            return
        async with self._queue:  # only the first in the queue wakes when a call ends
            while not self._free(connection):
                if not connection.out.drained:
                    await connection.out.wait_until_drained()
                    continue
                with trio.move_on_after(STUCK_SECONDS) as scope:
                    await self._ended.park()
                if scope.cancelled_caught:
                    self._limit *= 2
            self._running += 1

    def _free(self, connection: Connection) -> bool:
        return self._running < self._limit and connection.out.drained

    def release(self, size: int) -> None:
        """A call has ended, with an answer of ``size`` bytes."""
        self._running -= 1
        self._limit = FEW if size > LARGE_BYTES else self._limit + 1
        self._ended.unpark_all()


class ClientSession:
    """One client's calls.

    A call goes through `handle`, with one boundary for errors and one binding of its number to the
    log. Its operation is begun at once, in the order of the client's requests. If the result has to
    be awaited, `handle` returns `_finish`, which the connection runs in another task: only
    then are there a second boundary and a second binding, for that task.
    """

    def __init__(self, simulation: HostedSimulation, name: str) -> None:
        self.calls = 0
        self._limit = ConcurrencyLimit()
        self._simulation = simulation
        self._name = name

    def __str__(self) -> str:
        return f"client {self._name}"

    def handle(self, request: Request) -> Answer:
        """Answer a call: at once if its operation does not have to wait."""
        self.calls += 1
        number = f"{self._name}-{self.calls}"
        with bound(request=number), error_boundary(self._simulation.address):
            result = self._begin(request)
            if not isawaitable(result):
                return self._encode(result, request.method)
        return self._finish(number, request, result)

    def _begin(self, request: Request) -> Any:
        target, method = request.target, request.method
        if isinstance(target, str):
            return self._relay(target, request)
        if target is not None:
            raise CallRefused(f"{target!r} is not an agent's address")
        call = self._simulation.network.codec.decode(request.payload)
        if not is_call(call):
            raise BadArguments(f"{method}: expected (args, kwargs)")
        args, kwargs = call
        if method == "attach":
            return self._attach(*args, **kwargs)
        operation = OPERATIONS.get(method)
        if operation is None:
            raise CallRefused(f"a simulation has no operation {method!r}")
        return self._simulation.begin(operation, args, kwargs)

    async def _finish(self, number: str, request: Request, result: Awaitable[Any]) -> Payload:
        simulation = self._simulation
        with bound(request=number):
            try:
                with error_boundary(simulation.address):
                    value = await result
                    if isinstance(value, Payload):  # relayed
                        return value
                    return self._encode(value, request.method)
            except ConnectionLost as error:
                closed = simulation.closed_error(error)
                if closed is None:
                    raise
                raise closed from error

    def _encode(self, value: Any, method: str) -> Payload:
        """Encode a result; if that fails, it is an error of the code that made the result."""
        root = f"the reply of {method}"
        try:
            return self._simulation.network.codec.encode(value, root=root)
        except EncodeError as error:
            if method in _LESS_AT_ONCE and error.path == root:  # not a piece of it, but its size
                raise EncodeError(f"{error}: {_LESS_AT_ONCE[method]}", path=root) from error
            raise AgentError.from_exception(self._simulation.address, error) from error

    async def _relay(self, target: str, request: Request) -> Payload:
        """Call an agent, with arguments and result unopened."""
        await self._limit.acquire(request.connection)
        size = 0
        try:
            answer = await self._simulation.network.relay(target, request)
            size = payload_size(answer)
            return answer
        finally:
            self._limit.release(size)

    def _attach(self, name: Any = None, about: Any = None, *_: Any, **__: Any) -> dict[str, Any]:
        simulation = self._simulation
        if name != simulation.name:
            raise UnknownSimulation(f"this is {simulation.name!r}, not {name!r}")
        log.debug("%s attached: %r", self, about)
        script = MainScript.of_this_process()
        return {
            "name": simulation.name,
            "pid": os.getpid(),
            "python": sys.version_info[:2],
            "script": None if script is None else script.file,
            "progress": simulation.progress(),
        }
