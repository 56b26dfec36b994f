"""The async client: the same under asyncio and trio."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from creamas_sc.client import messages
from creamas_sc.client.async_connection import OPEN_SECONDS, linked
from creamas_sc.client.daemon_api import (
    ATTACH_SECONDS,
    END_POLLS,
    STATUS,
    STOP_SECONDS,
    TAKE_BACK_SECONDS,
    Ask,
    DaemonAPI,
    attachment,
    fate,
)
from creamas_sc.client.simulation_base import ENDING, Attached, Event, numbered
from creamas_sc.errors import ConnectionLost, CreamasError, HostLost
from creamas_sc.rpc.connection import Connection
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.interrupts import install_signal_handling
from creamas_sc.runtime.paths import daemon_name, daemon_socket
from creamas_sc.simulation_api import Operation
from creamas_sc.wire.codec import Codec, Payload

__all__ = ["Client", "Simulation", "connect"]

log = logging.getLogger(__name__)

# For the daemon to tell what became of a host.
FATE_SECONDS = 2.0


def connect(daemon: str | None = None) -> AbstractAsyncContextManager[Client]:
    """``async with connect() as client``: the daemon of that name, ``$CREAMAS_DAEMON`` by default.

    Raises:
        ConnectionLost: No such daemon runs; the message says how to start it.
        HandshakeError: What listens there is no daemon of this user.
        CreamasError: The socket may not be opened.
    """
    end_script_load()
    install_signal_handling()
    name = daemon_name(daemon)
    return _connected(name, daemon_socket(name))


@asynccontextmanager
async def _connected(daemon: str, path: Path) -> AsyncIterator[Client]:
    async with linked(daemon, path, Codec(), f"the daemon {daemon!r}") as link:
        client = Client(daemon, path, link)
        with anyio.move_on_after(OPEN_SECONDS):
            client._meet(await client.status())
        if not client.pid:
            raise messages.no_answer(daemon, path, OPEN_SECONDS)
        yield client


class Client(DaemonAPI):
    """A daemon, through a connection of its own; all methods are awaited.

    Calls are independent of each other; a call that is cancelled is cancelled in the daemon, too.
    """

    def __init__(self, daemon: str, socket: Path, link: Connection) -> None:
        super().__init__(daemon, socket)
        self._link = link

    async def _ask(self, ask: Ask) -> Any:
        try:
            answer = await self._link.call(None, ask.method, ask.encoded())
        except ConnectionLost as error:
            if type(error) is not ConnectionLost or self._link.alive:
                raise
            raise await self._explained(error) from None
        except BaseException as error:
            undo = ask.to_undo(error)
            if undo is not None:
                await self._take_back(undo)
            raise
        if ask.method == "stop":
            with anyio.move_on_after(STOP_SECONDS):
                await self._link.closed.wait()
        return ask.answer(answer)

    async def _take_back(self, undo: Ask) -> None:
        with anyio.CancelScope(shield=True):
            try:
                payload = undo.encoded()
                await self._link.call(None, undo.method, payload, timeout=TAKE_BACK_SECONDS)
            except CreamasError as error:
                log.debug("%s: %s", undo.method, error)

    async def _explained(self, error: ConnectionLost) -> ConnectionLost:
        """What the end of the connection means."""
        try:
            status = await self._ask_anew(STATUS)
        except CreamasError:
            return messages.daemon_gone(self.daemon, error)
        return messages.daemon_lost(self.daemon, error, ours=status["pid"] == self.pid, anew=True)

    async def _ask_anew(self, ask: Ask) -> Any:
        """Ask over a connection of its own."""
        name = f"the daemon {self.daemon!r}"
        async with linked(self.daemon, self.socket, Codec(), name) as link:
            answer = await link.call(None, ask.method, ask.encoded(), timeout=FATE_SECONDS)
        return ask.answer(answer)

    @asynccontextmanager
    async def attach(self, name: str) -> AsyncIterator[Simulation]:
        """``async with client.attach(name) as simulation``; the block's end detaches.

        Raises:
            UnknownSimulation: There is none of that name.
        """
        ask = attachment(name)
        simulation = Simulation(self, name)
        async with linked(
            self.daemon, self.socket, simulation._codec, f"the simulation {name!r}"
        ) as link:
            told = await link.call(None, ask.method, ask.encoded(), timeout=ATTACH_SECONDS)
            simulation._begin(link, ask.answer(told))
            try:
                yield simulation
            finally:
                simulation._detached = True

    async def _fate(self, name: str, pid: int) -> dict[str, Any] | None:
        """What became of a host; None where the daemon does not say."""
        told: dict[str, Any] | None = None
        with anyio.move_on_after(FATE_SECONDS):
            try:
                told = await self._ask_surely(fate(name, pid))
            except CreamasError:
                return None
        return told

    async def _ask_surely(self, ask: Ask) -> Any:
        """Ask what may be asked twice."""
        if self._link.alive:
            try:
                return await self._ask(ask)
            except ConnectionLost as error:
                if self._link.alive:
                    raise
                log.debug("asking again: %s", error)
        return await self._ask_anew(ask)

    async def _see_end(self, name: str, pid: int) -> None:
        """Wait until a host that has answered for the last time is gone."""
        for _ in range(END_POLLS):
            told = await self._fate(name, pid)
            if told is None or told["ended"]:
                return


class Simulation(Attached):
    """A simulation in a daemon, through a connection to its host; all operations are awaited.

    Calls are independent of each other and may be made from several tasks. One that is cancelled,
    or whose deadline passes, is cancelled in every process that works for it.

    Raises:
        HostLost: The simulation has ended; the message says how.
    """

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(client.daemon, name)
        self._client = client
        self._detached = False
        self._link: Connection | None = None

    def _begin(self, link: Connection, told: dict[str, Any]) -> None:
        self._link = link
        self._meet(told)

    async def _invoke(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        payload = self._encoded(operation, args, kwargs)
        answer = await self._call(None, operation.name, payload)
        if operation.name in ENDING:
            await self._client._see_end(self.name, self.pid)
        return self._codec.decode(answer)

    async def call_agent(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call an exposed method of the agent at ``address``; what a `Proxy` does."""
        payload = self._codec.encode((args, kwargs))
        return self._codec.decode(await self._call(address, method, payload))

    async def _call(self, target: str | None, method: str, payload: Payload) -> Payload:
        link = self._link
        assert link is not None
        if self._detached:
            raise messages.detached(f"the simulation {self.name!r}")
        try:
            return await link.call(target, method, payload)
        except ConnectionLost as error:
            if type(error) is not ConnectionLost or link.alive:
                raise  # told by the host
            raise await self._explained(error) from None

    async def _explained(self, error: ConnectionLost) -> ConnectionLost:
        if self._detached:
            return messages.detached(f"the simulation {self.name!r}")
        told = await self._client._fate(self.name, self.pid)
        return messages.simulation_lost(self.name, self.pid, error, told)

    def events(self, since: int | None = None) -> AsyncIterator[Event]:
        """``(number, name, details)`` of what happens in the simulation, until it closes.

        Whoever is too slow gets ``(number, "gap", {"lost": k})`` in place of what was lost; see
        `next_events` for the others.

        Args:
            since: Number of the last event known; None for those from the first request on.
        """
        return _Events(self, since)


class _Events(AsyncIterator[Event]):
    """Asks for events when those it has are used up: there is nothing to close.

    A generator would be in want of that wherever a loop over it is left.
    """

    def __init__(self, simulation: Simulation, since: int | None) -> None:
        self._simulation = simulation
        self._since = since
        self._waiting: deque[Event] = deque()
        self._closing = False

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._closing:
                raise StopAsyncIteration
            since = self._since
            try:
                self._since, events = await self._simulation.next_events(since)
            except HostLost as error:
                if error.expected:  # it closed while nobody asked
                    raise StopAsyncIteration from None
                raise
            self._waiting += numbered(since, events)
        event = self._waiting.popleft()
        self._closing = event[1] == "closing"
        return event
