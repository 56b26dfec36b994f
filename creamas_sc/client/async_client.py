"""The async client, for asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio

from creamas_sc.client import connection_errors
from creamas_sc.client.async_channel import open_channel
from creamas_sc.client.base_client import ClientCore, Event, EventReader, SimulationCore
from creamas_sc.client.daemon_api import ATTACH_SECONDS, attachment
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.paths import daemon_name, daemon_socket
from creamas_sc.runtime.timeouts import OPEN_SECONDS
from creamas_sc.wire.codec import Codec


def connect(daemon: str | None = None) -> AbstractAsyncContextManager[Client]:
    """Connect to a daemon: ``async with connect() as client``.

    Args:
        daemon: Its name; ``$CREAMAS_DAEMON`` by default, else "default".

    Raises:
        ConnectionLost: The daemon is not running; the message says how to start it.
        HandshakeError: The process that listens there is not a daemon of this user.
        CreamasError: The socket may not be opened.
    """
    end_script_load()
    name = daemon_name(daemon)
    return _connected(name, daemon_socket(name))


@asynccontextmanager
async def _connected(daemon: str, path: Path) -> AsyncIterator[Client]:
    async with open_channel(daemon, path, Codec(), f"the daemon {daemon!r}") as channel:
        client = Client(daemon, path)
        client._channel = channel
        with anyio.move_on_after(OPEN_SECONDS):
            client._greeted(await client.status())
        if not client.pid:
            raise connection_errors.no_answer(daemon, path, OPEN_SECONDS)
        yield client


class Client(ClientCore):
    """A connection to a daemon; all methods are awaited.

    Calls are independent of each other; a call that is cancelled is cancelled in the daemon, too.
    """

    @asynccontextmanager
    async def attach(self, name: str) -> AsyncIterator[Simulation]:
        """Attach to a simulation: ``async with client.attach(name) as simulation``.

        The end of the block detaches.

        Raises:
            UnknownSimulation: There is no simulation of that name.
        """
        request = attachment(name)
        simulation = Simulation(self, name)
        codec, what = simulation._codec, simulation._what
        async with open_channel(self.daemon, self.socket, codec, what) as channel:
            answer = await channel.call(request.encoded(), ATTACH_SECONDS)
            simulation._greeted(request.answer(answer))
            simulation._channel = channel
            yield simulation


class Simulation(SimulationCore):
    """A connection to a simulation in a daemon; all operations are awaited.

    Calls are independent of each other and may be made from several tasks. A call that is
    cancelled, or whose deadline passes, is cancelled in every process that works for it.

    Raises:
        HostLost: The simulation has ended; the message says how.
    """

    def events(self, since: int | None = None) -> AsyncIterator[Event]:
        """Iterate over ``(number, name, details)`` of the simulation's events until it closes.

        A reader that is too slow gets ``(number, "gap", {"lost": k})`` in place of what it missed;
        `next_events` lists the other events.

        Args:
            since: Number of the last event known; None for those from the first request on.
        """
        return EventReader(partial(self._next_events, self._channel), since)
