"""The blocking client: plain calls, without a thread or an event loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from creamas_sc.client import messages
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
from creamas_sc.client.sync_connection import OPEN_SECONDS, Line, open_connection
from creamas_sc.errors import (
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    HostLost,
    UnknownSimulation,
)
from creamas_sc.rpc.sync_connection import BlockingConnection
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.interrupts import install_signal_handling
from creamas_sc.runtime.paths import daemon_name, daemon_socket
from creamas_sc.simulation_api import OPERATIONS, Operation
from creamas_sc.wire.codec import Codec, Payload

__all__ = ["SyncClient", "SyncSimulation", "connect_sync"]

log = logging.getLogger(__name__)

# For the daemon to tell what became of a host.
FATE_SECONDS = 2.0
# For the daemon to answer once more where the connection to it has ended.
RENEWAL_SECONDS = 2.0


def connect_sync(daemon: str | None = None, *, timeout: float | None = None) -> SyncClient:
    """A connection to the daemon of that name, ``$CREAMAS_DAEMON`` by default.

    Close it with `SyncClient.disconnect`, or use it as a context manager.

    Args:
        timeout: Seconds that each call to the daemon may take; None for no limit.

    Raises:
        ConnectionLost: No such daemon runs; the message says how to start it.
        HandshakeError: What listens there is no daemon of this user.
        CreamasError: The socket may not be opened.
    """
    end_script_load()
    install_signal_handling()
    name = daemon_name(daemon)
    client = SyncClient(name, daemon_socket(name), timeout)
    try:
        client._begin()
    except BaseException:
        client.disconnect()
        raise
    return client


class SyncClient(DaemonAPI):
    """A daemon, through a connection of its own; all methods block.

    Several threads may use it, one call at a time. Ctrl-C ends the call that it interrupts, in
    the daemon too, and nothing else.

    Attributes:
        timeout: Seconds that each call may take; None for no limit.
    """

    def __init__(self, daemon: str, socket: Path, timeout: float | None) -> None:
        super().__init__(daemon, socket)
        self.timeout = timeout
        self._what = f"the daemon {daemon!r}"
        self._line = Line(self._open, self._what)

    def _open(self, timeout: float | None) -> BlockingConnection:
        connection = open_connection(self.daemon, self.socket, Codec(), self._what, timeout)
        limit = OPEN_SECONDS if timeout is None else min(timeout, OPEN_SECONDS)
        try:
            told = connection.call(None, STATUS.method, STATUS.encoded(), timeout=limit)
            self._meet(STATUS.answer(told))
        except DeadlineExceeded:
            connection.close()
            raise messages.no_answer(self.daemon, self.socket, limit) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self) -> None:
        self._line.open(self.timeout)

    def _ask(self, ask: Ask) -> Any:
        try:
            answer = self._line.call(None, ask.method, ask.encoded(), self.timeout)
        except ConnectionLost as error:
            if type(error) is not ConnectionLost or not self._line.lost:
                raise
            raise self._explained(error) from None
        except BaseException as error:
            undo = ask.to_undo(error)
            if undo is not None:
                self._take_back(undo)
            raise
        if ask.method == "stop":
            self._line.wait_end(STOP_SECONDS)
        return ask.answer(answer)

    def _take_back(self, undo: Ask) -> None:
        try:
            self._line.call(None, undo.method, undo.encoded(), TAKE_BACK_SECONDS)
        except CreamasError as error:
            log.debug("%s: %s", undo.method, error)

    def _explained(self, error: ConnectionLost) -> ConnectionLost:
        """What the end of the connection means; where the daemon is there, there is a new one."""
        pid = self.pid
        try:
            self._line.renew(RENEWAL_SECONDS)
        except CreamasError:
            return messages.daemon_gone(self.daemon, error)
        return messages.daemon_lost(self.daemon, error, ours=pid == self.pid)

    def attach(self, name: str) -> SyncSimulation:
        """The simulation of that name, also as a context manager; see `SyncSimulation.detach`.

        Raises:
            UnknownSimulation: There is none of that name.
        """
        simulation = SyncSimulation(self, name)
        simulation._begin()
        return simulation

    def _fate(self, name: str, pid: int) -> dict[str, Any] | None:
        """What became of a host; None where the daemon does not say."""
        ask = fate(name, pid)
        # A simulation may be in use after `disconnect`.
        line = Line(self._open, self._what) if self._line.closed else self._line
        try:
            try:
                payload = line.call(None, ask.method, ask.encoded(), FATE_SECONDS)
            except ConnectionLost:
                if not line.lost:
                    raise
                line.renew(RENEWAL_SECONDS)
                payload = line.call(None, ask.method, ask.encoded(), FATE_SECONDS)
            told: dict[str, Any] = ask.answer(payload)
        except CreamasError:
            return None
        finally:
            if line is not self._line:
                line.close()
        return told

    def _see_end(self, name: str, pid: int) -> None:
        """Wait until a host that has answered for the last time is gone."""
        for _ in range(END_POLLS):
            told = self._fate(name, pid)
            if told is None or told["ended"]:
                return

    def disconnect(self) -> None:
        """Close the connection; a call in flight in another thread gets `ConnectionLost`."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()


class SyncSimulation(Attached):
    """A simulation in a daemon, through a connection to its host; all operations block.

    Several threads may use it, one call at a time. Ctrl-C cancels the call that it interrupts, in
    every process that works for it; the simulation goes on, and so may the caller.

    Attributes:
        timeout: Seconds that each call may take, its way through all processes included; None
            for no limit.

    Raises:
        HostLost: The simulation has ended; the message says how.
        DeadlineExceeded: `timeout` passed.
    """

    def __init__(self, client: SyncClient, name: str) -> None:
        super().__init__(client.daemon, name)
        self.timeout: float | None = None
        self._client = client
        self._what = f"the simulation {name!r}"
        self._line = Line(self._open, self._what)
        self._lines = [self._line]

    def _open(self, timeout: float | None) -> BlockingConnection:
        ask, client = attachment(self.name), self._client
        connection = open_connection(client.daemon, client.socket, self._codec, self._what, timeout)
        limit = ATTACH_SECONDS if timeout is None else min(timeout, ATTACH_SECONDS)
        try:
            told = ask.answer(connection.call(None, ask.method, ask.encoded(), timeout=limit))
            if self.pid and told["pid"] != self.pid:
                raise messages.replaced(self.name)
            self._meet(told)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self) -> None:
        self._line.open(self._client.timeout)

    def _invoke(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        payload = self._encoded(operation, args, kwargs)
        answer = self._call(self._line, None, operation.name, payload, self.timeout)
        if operation.name in ENDING:
            self._client._see_end(self.name, self.pid)
        return self._codec.decode(answer)

    def call_agent(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call an exposed method of the agent at ``address``; what a `Proxy` does."""
        payload = self._codec.encode((args, kwargs))
        answer = self._call(self._line, address, method, payload, self.timeout)
        return self._codec.decode(answer)

    def _call(
        self, line: Line, target: str | None, method: str, payload: Payload, timeout: float | None
    ) -> Payload:
        try:
            return line.call(target, method, payload, timeout)
        except UnknownSimulation:  # when attaching again
            error = ConnectionLost("", may_have_run=False)
        except ConnectionLost as lost:
            if type(lost) is not ConnectionLost or not line.lost:
                raise  # told by the host
            error = lost
        told = self._client._fate(self.name, self.pid)
        raise messages.simulation_lost(self.name, self.pid, error, told)

    def events(self, since: int | None = None) -> Iterator[Event]:
        """``(number, name, details)`` of what happens in the simulation, until it closes.

        They come over a connection of their own, so that the simulation can be used meanwhile.
        Whoever is too slow gets ``(number, "gap", {"lost": k})`` in place of what was lost; see
        `next_events` for the others.

        Args:
            since: Number of the last event known; None for those from the first request on.
        """
        line = Line(self._open, self._what)
        self._lines.append(line)
        try:
            if since is None:
                since, _ = self._next_events(line, None)
            while True:
                last, events = self._next_events(line, since)
                for event in numbered(since, events):
                    yield event
                    if event[1] == "closing":
                        return
                since = last
        except HostLost as error:
            if not error.expected:  # else: it closed while nobody asked
                raise
        finally:
            self._lines.remove(line)
            line.close()

    def _next_events(self, line: Line, since: int | None) -> tuple[int, list[Event]]:
        payload = self._encoded(OPERATIONS["next_events"], (since,), {})
        told: tuple[int, list[Event]] = self._codec.decode(
            self._call(line, None, "next_events", payload, None)
        )
        return told

    def detach(self) -> None:
        """Leave the simulation, which goes on; a call in flight in another thread is cancelled."""
        for line in list(self._lines):
            line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()
