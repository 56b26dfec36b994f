"""The blocking client: plain calls, without a thread or an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

from creamas_sc.client import base_client, connection_errors
from creamas_sc.client.base_client import run_blocking
from creamas_sc.client.daemon_api import ATTACH_SECONDS, STATUS, Request, attachment
from creamas_sc.client.sync_channel import BlockingChannel, open_connection
from creamas_sc.errors import DeadlineExceeded
from creamas_sc.nodes import Nodes
from creamas_sc.rpc.sync_connection import BlockingConnection
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.paths import daemon_name, daemon_socket
from creamas_sc.runtime.timeouts import OPEN_SECONDS
from creamas_sc.simulation_api import Operation
from creamas_sc.wire.codec import Codec


def connect_sync(daemon: str | None = None, *, timeout: float | None = None) -> SyncClient:
    """Connect to a daemon.

    Close the connection with `SyncClient.disconnect`, or use the client as a context manager.

    Args:
        daemon: Its name; ``$CREAMAS_DAEMON`` by default, else "default".
        timeout: Seconds that each call to the daemon may take; None for no limit.

    Raises:
        ConnectionLost: The daemon is not running; the message says how to start it.
        HandshakeError: The process that listens there is not a daemon of this user.
        CreamasError: The socket may not be opened.
    """
    end_script_load()
    name = daemon_name(daemon)
    client = SyncClient(name, daemon_socket(name), timeout)
    try:
        client._channel.open(timeout)
    except BaseException:
        client.disconnect()
        raise
    return client


def _greet(
    connection: BlockingConnection, request: Request, seconds: float, greeted: Callable[[Any], None]
) -> None:
    """Make the first call of a connection, and close the connection if it fails."""
    try:
        answer = connection.call(*request.encoded(), timeout=seconds)
        greeted(request.answer(answer))
    except BaseException:
        connection.close()
        raise


class SyncClient(base_client.ClientCore):
    """A connection to a daemon; all methods block.

    Several threads may use it; their calls take turns. Ctrl-C ends the call that it interrupts, in
    the daemon too, and nothing else.

    Attributes:
        timeout: Seconds that each call may take; None for no limit.
    """

    _channel: BlockingChannel

    def __init__(self, daemon: str, socket: Path, timeout: float | None) -> None:
        super().__init__(daemon, socket)
        self.timeout = timeout
        self._what = f"the daemon {daemon!r}"
        self._channel = BlockingChannel(self._open, self._what)

    def _open(self, timeout: float | None) -> BlockingConnection:
        seconds = OPEN_SECONDS if timeout is None else min(timeout, OPEN_SECONDS)
        connection = open_connection(self.daemon, self.socket, Codec(), self._what, timeout)
        try:
            _greet(connection, STATUS, seconds, self._greeted)
        except DeadlineExceeded:
            raise connection_errors.no_answer(self.daemon, self.socket, seconds) from None
        return connection

    def _request(self, request: Request) -> Any:
        return run_blocking(super()._request(request))

    def _request_on(self, nodes: Nodes, make: Callable[[], Request]) -> Any:
        return run_blocking(super()._request_on(nodes, make))

    def attach(self, name: str) -> SyncSimulation:
        """Attach to a simulation; leave it with `SyncSimulation.detach`, or use it in a ``with``.

        Raises:
            UnknownSimulation: There is no simulation of that name.
        """
        simulation = SyncSimulation(self, name)
        simulation._channel.open(self.timeout)
        return simulation

    def disconnect(self) -> None:
        """Close the connection; a call in progress in another thread raises `ConnectionLost`."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()


class SyncSimulation(base_client.SimulationCore):
    """A connection to a simulation in a daemon; all operations block.

    Several threads may use it; their calls take turns. Ctrl-C cancels the call that it interrupts,
    in every process that works for it. The simulation goes on, and this object stays usable.

    Attributes:
        timeout: Seconds that each call may take, its way through all processes included; None
            for no limit.

    Raises:
        HostLost: The simulation has ended; the message says how.
        DeadlineExceeded: `timeout` passed.
    """

    _client: SyncClient
    _channel: BlockingChannel

    def __init__(self, client: SyncClient, name: str) -> None:
        super().__init__(client, name)
        self._channel = BlockingChannel(self._open, self._what)
        self._event_channels: list[BlockingChannel] = []

    def _open(self, timeout: float | None) -> BlockingConnection:
        seconds = ATTACH_SECONDS if timeout is None else min(timeout, ATTACH_SECONDS)
        request, client = attachment(self.name), self._client
        connection = open_connection(client.daemon, client.socket, self._codec, self._what, timeout)
        _greet(connection, request, seconds, self._greeted)
        return connection

    def _invoke(
        self, operation: Operation, args: base_client.Args, kwargs: base_client.Kwargs
    ) -> Any:
        return run_blocking(super()._invoke(operation, args, kwargs))

    def call_agent(
        self, address: str, method: str, args: base_client.Args, kwargs: base_client.Kwargs
    ) -> Any:
        """Call an exposed method of the agent at ``address``; what a `Proxy` does."""
        return run_blocking(super().call_agent(address, method, args, kwargs))

    def events(self, since: int | None = None) -> Iterator[base_client.Event]:
        """Iterate over ``(number, name, details)`` of the simulation's events until it closes.

        Events come over a separate connection, so the simulation can be used meanwhile. A reader
        that is too slow gets ``(number, "gap", {"lost": k})`` in place of what it missed;
        `next_events` lists the other events.

        Args:
            since: Number of the last event known; None for those from the first request on.
        """
        channel = BlockingChannel(self._open, self._what)
        self._event_channels.append(channel)
        reader = base_client.EventReader(partial(self._next_events, channel), since)
        try:
            while True:
                yield run_blocking(reader.__anext__())
        except StopAsyncIteration:
            return
        finally:
            self._event_channels.remove(channel)
            channel.close()

    def detach(self) -> None:
        """Leave the simulation, which goes on; a call in another thread is cancelled."""
        for channel in [self._channel, *self._event_channels]:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()
