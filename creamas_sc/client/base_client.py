"""What both clients do, written once: which calls they make, and what the errors mean.

The methods here are coroutines, and all that they ever wait for is a `Channel`::

        ClientCore          SimulationCore
             \\                  /
              \\                /             call, call_shielded, call_again, wait_closed
               v              v
                   Channel
                /            \\
     AsyncChannel             BlockingChannel
     suspends its task        blocks its thread, and so never suspends a coroutine
     lives in an async with   reconnects after an interrupt or a fork

An async client's methods are these coroutines, to be awaited under asyncio or trio. A blocking
client overrides them and runs each to its end with `run_blocking`: as its channel never suspends,
one ``send`` is enough, and a Ctrl-C is raised where the channel waits, as in any other function.

When the peer ends a connection, the call on it fails with ConnectionLost and ``Channel.lost`` is
true. The caller should know more than that, so the daemon is asked before the error is raised:

- A call to the daemon lost its connection: ask for the daemon's status over a new connection. No
  answer means that the daemon is gone. An answer with another pid means that this daemon is gone
  and another one has its name. The same pid means that only the connection was lost.
- A call to a simulation lost its connection: ask the daemon what happened to its host. The host
  has ended (HostLost), or it still runs and the user can attach again (ConnectionLost).

ConnectionLost that a peer *sends*, about a slave for example, leaves ``lost`` false and is raised
as it is.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from creamas_sc.client import connection_errors
from creamas_sc.client.class_resolution import RemoteClasses, ScriptCodec, version
from creamas_sc.client.daemon_api import STATUS, Call, DaemonAPI, Request
from creamas_sc.errors import ConnectionLost, CreamasError, HostLost, UnknownSimulation
from creamas_sc.foreign import cut_traceback
from creamas_sc.nodes import NodeAccess, Nodes
from creamas_sc.runtime.validation import make_folder
from creamas_sc.simulation_api import Operation, SimulationAPI
from creamas_sc.supervisor_client.messages import HostStatus
from creamas_sc.wire.codec import Payload

log = logging.getLogger(__name__)

# For the daemon to report on itself or on a host after a connection was lost.
ASK_AGAIN_SECONDS = 2.0
# How often the daemon is asked, half a second each, whether a host that is closing has ended.
END_POLLS = 8
# For the daemon to exit once it has reported that everything is closed.
STOP_SECONDS = 5.0
# For the daemon to end what a cancelled call has created.
ROLLBACK_SECONDS = 1.0
# Operations after which the host ends.
_ENDING = frozenset({"close", "destroy"})

Event = tuple[int, str, dict[str, Any]]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Channel(ABC):
    """A connection to a daemon or host, as the core uses it.

    Args:
        what: The other end, for messages.

    Attributes:
        closed: Whether this side has closed it.
    """

    def __init__(self, what: str) -> None:
        self.closed = False
        self._what = what

    @property
    @abstractmethod
    def lost(self) -> bool:
        """Whether the peer has ended the connection."""

    async def call(self, call: Call, timeout: float | None = None) -> Payload:
        """Make a call and return the answer.

        Raises:
            ConnectionLost: The connection ended, or was closed on this side.
            DeadlineExceeded: ``timeout`` seconds passed.
        """
        if self.closed:
            raise connection_errors.detached(self._what)
        try:
            return await self._call(call, timeout)
        except ConnectionLost:
            if self.closed:
                raise connection_errors.detached(self._what) from None
            raise

    @abstractmethod
    async def _call(self, call: Call, timeout: float | None) -> Payload: ...

    @abstractmethod
    async def call_shielded(self, call: Call, timeout: float) -> None:
        """Make a call, and finish even if the caller is cancelled."""

    @abstractmethod
    async def call_again(self, call: Call, timeout: float) -> Payload:
        """Make a call that may be made twice: again if the connection is lost or closed."""

    @abstractmethod
    async def wait_closed(self, timeout: float) -> None:
        """Wait until the peer has ended the connection, for ``timeout`` seconds at most."""

    @abstractmethod
    async def run(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function that blocks."""


def run_blocking(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine whose channel blocks instead of suspending, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    except BaseException as error:
        cut_traceback(error)
        raise
    raise AssertionError("the channel of a blocking client must not suspend")


class ClientCore(DaemonAPI):
    """A client of a daemon; a subclass provides the channel.

    Attributes:
        timeout: Seconds that each call to the daemon may take; None for no limit.
    """

    timeout: float | None = None
    _channel: Channel

    def __init__(self, daemon: str, socket: Path) -> None:
        super().__init__(daemon, socket)
        self._nodes: list[Nodes] = []  # those that were started, kept as long as this is

    async def _request(self, request: Request) -> Any:
        """Make a request and return its answer; if the caller gives up, roll it back."""
        try:
            answer = await self._channel.call(request.encoded(), self.timeout)
        except ConnectionLost as error:
            if type(error) is not ConnectionLost or not self._channel.lost:
                raise
            old_pid = self.pid  # reconnecting may change it
            pid: int | None = None
            with suppress(CreamasError):
                pid = (await self._ask_again(STATUS))["pid"]
            reconnect = self._channel.lost
            raise connection_errors.daemon_lost(
                self.daemon, error, old_pid=old_pid, pid=pid, reconnect=reconnect
            ) from None
        except BaseException as error:
            undo = request.undo_after(error)
            if undo is not None:
                try:
                    await self._channel.call_shielded(undo.encoded(), ROLLBACK_SECONDS)
                except CreamasError as failure:
                    log.debug("%s: %s", undo.method, failure)
            raise
        if request.method == "stop":
            await self._channel.wait_closed(STOP_SECONDS)
        return request.answer(answer)

    async def _request_on(self, nodes: Nodes, make: Callable[[], Request]) -> Any:
        """Have nodes started that join the daemon, and make a request; if it fails, stop them."""
        access = await ClientCore._request(self, Request("node_access"))
        try:
            known = NodeAccess(access["host"], access["port"], access["key"])
            await self._channel.run(nodes.start, known)
            answer = await ClientCore._request(self, make())
        except BaseException:
            await self._channel.run(nodes.stop)
            raise
        self._nodes.append(nodes)
        return answer

    async def _ask_again(self, request: Request) -> Any:
        answer = await self._channel.call_again(request.encoded(), ASK_AGAIN_SECONDS)
        return request.answer(answer)

    async def _host_status(self, name: str, pid: int) -> HostStatus | None:
        """Ask what became of a simulation's host; None if the daemon does not answer."""
        try:
            return await self._ask_again(Request("host_status", (name, pid)))  # type: ignore[no-any-return]
        except CreamasError:
            return None

    async def _wait_host_end(self, name: str, pid: int) -> None:
        """Wait until a host that has given its last answer is gone."""
        for _ in range(END_POLLS):
            status = await self._host_status(name, pid)
            if status is None or status["ended"]:
                return


class HostGreeting(TypedDict):
    """What a host answers to a client that attaches."""

    pid: int
    python: Any
    script: str | None


class SimulationCore(SimulationAPI):
    """A simulation in a daemon; a subclass provides the channel.

    Attributes:
        name: Its name in the daemon.
        pid: The process of its host.
        timeout: Seconds that each call may take, its way through all processes included; None
            for no limit.
    """

    _channel: Channel

    def __init__(self, client: ClientCore, name: str) -> None:
        self.name = name
        self.pid = 0
        self.timeout: float | None = None
        self._client = client
        self._what = f"the simulation {name!r}"
        self._codec = ScriptCodec(self)

    def __repr__(self) -> str:
        where = f"in the daemon {self._client.daemon!r}, host pid {self.pid}"
        return f"<{type(self).__name__} {self.name!r} {where}>"

    def _greeted(self, greeting: HostGreeting) -> None:
        """Note what the host says about itself.

        Raises:
            HostLost: It is another simulation than the one attached to before.
        """
        if self.pid and greeting["pid"] != self.pid:
            raise HostLost(
                f"the simulation {self.name!r} has ended, and another of that name was created "
                "since: attach to that one",
                may_have_run=False,
            )
        self.pid = greeting["pid"]
        python, daemon = version(greeting["python"]), self._client.daemon
        self._codec.remote = RemoteClasses(daemon, python, self.name, greeting["script"])

    async def _invoke(self, operation: Operation, args: Args, kwargs: Kwargs) -> Any:
        remote = self._codec.remote
        assert remote is not None
        if operation.name in _ENDING:  # the host may have another working folder
            args, kwargs = (make_folder(*args, **kwargs),), {}
        payload = self._codec.encode(remote.arguments(operation, args, kwargs))
        answer = await self._call(Call(None, operation.name, payload))
        if operation.name in _ENDING:
            await self._client._wait_host_end(self.name, self.pid)
        return self._codec.decode(answer)

    async def call_agent(self, address: str, method: str, args: Args, kwargs: Kwargs) -> Any:
        """Call an exposed method of the agent at ``address``; what a `Proxy` does."""
        payload = self._codec.encode((args, kwargs))
        return self._codec.decode(await self._call(Call(address, method, payload)))

    async def _next_events(self, channel: Channel, since: int | None) -> tuple[int, list[Event]]:
        payload = self._codec.encode(((since,), {}))
        answer = await self._call(Call(None, "next_events", payload), channel)
        events: tuple[int, list[Event]] = self._codec.decode(answer)
        return events

    async def _call(self, call: Call, events: Channel | None = None) -> Payload:
        """Call over the simulation's channel, or without a limit of time over one for events."""
        channel, timeout = (self._channel, self.timeout) if events is None else (events, None)
        try:
            return await channel.call(call, timeout)
        except UnknownSimulation:  # the channel tried to attach again
            error = ConnectionLost("", may_have_run=False)
        except ConnectionLost as lost:
            if type(lost) is not ConnectionLost or not channel.lost:
                raise  # sent by the host, or raised after detaching
            error = lost
        status = await self._client._host_status(self.name, self.pid)
        raise connection_errors.simulation_lost(self.name, self.pid, error, status)


class EventReader(AsyncIterator[Event]):
    """A simulation's events in order until it closes, fetched when those fetched are used up.

    An iterator and not a generator, which would have to be closed where a loop is left.

    Args:
        fetch: Returns the number of the last event, and the events after a number.
        since: Number of the last event known; None for those from the first fetch on.
    """

    def __init__(
        self, fetch: Callable[[int | None], Awaitable[tuple[int, list[Event]]]], since: int | None
    ) -> None:
        self._fetch = fetch
        self._since = since
        self._ready: deque[Event] = deque()
        self._closing = False

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._closing:
                raise StopAsyncIteration
            known = self._since
            try:
                self._since, events = await self._fetch(known)
            except HostLost as error:
                if error.expected:  # it was closed between two fetches
                    raise StopAsyncIteration from None
                raise
            for event in events:
                if known is not None and event[0] > known + 1:
                    self._ready.append((event[0] - 1, "gap", {"lost": event[0] - known - 1}))
                known = event[0]
                self._ready.append(event)
        event = self._ready.popleft()
        self._closing = event[1] == "closing"
        return event
