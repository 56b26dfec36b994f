"""One environment's calls: to its own agents, to those of other environments, and from them.

    an agent's act --> Proxy --> call_agent --+--> _call_here   the agent is here: its method is
                                              |                 called, nothing is encoded
                                              +--> send         encoded arguments, over the
                                                                connection to the other environment,
                                                                which is opened if there is none
    a peer's call --> _answer --> the agent's method --> _finish, if that is a coroutine

References (`describe`, `resolve`) let agents travel as values: an agent or proxy leaves as its
address and class name, and arrives as a `Proxy` of this network.

Errors change their meaning on the way. What an agent's code raises becomes an `AgentError`; a
refusal of the call itself stays a refusal for its direct caller only. A lost connection is
explained by the environment, if it can: the end of a slave is known in more detail than the end of
a socket.

An artifact of a slave is sent to its master with the answer to the step in which it was published,
ahead of it; see `publish`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from types import CoroutineType
from typing import Any, Protocol

import trio

from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    CallRefused,
    ConnectionLost,
    DecodeError,
    EncodeError,
    SlaveLost,
    StepOverran,
    UnknownAgent,
    unwrapped,
)
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.rpc.addresses import is_number, locate
from creamas_sc.rpc.base_timeout import BaseTimeout
from creamas_sc.rpc.connection import Answer, Connection, Request
from creamas_sc.rpc.endpoint import Endpoint
from creamas_sc.rpc.exposed import Proxy, bad_arguments, exposed_method, is_awaitable, start_call
from creamas_sc.rpc.rounds.order import order_of, text_of
from creamas_sc.rpc.rounds.steps import Steps
from creamas_sc.rpc.routes import Route
from creamas_sc.rpc.step_replies import ROUNDS_METHODS, cannot_travel, encodable, undecodable_reply
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.event_loop import LoopHandle
from creamas_sc.runtime.nurseries import reraise_cancellation
from creamas_sc.runtime.timeouts import YIELD_SECONDS
from creamas_sc.serializers import follow
from creamas_sc.wire.codec import Codec, Payload, Serializer
from creamas_sc.wire.handshake import Identity
from creamas_sc.wire.packing import is_call

# What follows is the number of the agent, if it is known.
ARTIFACT_EVENT = "artifact"
# A master says where slaves are now that were elsewhere.
MOVES_EVENT = "moves"
# Proxies remembered, so that connecting again to a known agent costs no round trip.
MAX_KNOWN_PROXIES = 100_000
_NOTHING = Payload(b"")

# Gets the URL of an environment, the number of the agent that published, if known, and what.
ArtifactSink = Callable[[str, Any, Any], None]


class Slaves(Protocol):
    """What a master knows of the slaves that its network calls."""

    def holds(self, address: str) -> bool:
        """Whether the agent at ``address`` is in one of the slaves, or was in one that is lost."""

    async def wait_for(self, address: str) -> None:
        """Wait until the slave of the agent at ``address`` is back, if it is being restarted."""

    async def explain_loss(self, address: str, error: ConnectionLost) -> Exception:
        """Say what the loss of the connection to ``address`` means."""


class Network:
    """The calls of one environment's agents, within it and to others.

    Args:
        agents: The environment's agents; an agent's number is its position.
        agent_class: Instances of this class travel by reference.
        base_url: The environment's address, as asked for.
        serializers: How to carry the user's classes.

    Attributes:
        endpoint: Its listeners and connections.
        steps: Those that go in rounds.
        checks_local: Whether calls within the environment pass through the codec.
        slaves_return: Whether a slave whose connection has ended may be started again.
    """

    slaves_return = True

    def __init__(
        self,
        agents: Sequence[Any],
        agent_class: type,
        base_url: str,
        serializers: Sequence[Serializer],
    ) -> None:
        self.base_url = base_url
        self.types = (agent_class, Proxy)
        self.codec = Codec(serializers, references=self)
        # An agent's module, imported later, may register classes of its own.
        follow(self.codec.add)
        self.loop: LoopHandle
        self._slaves: Slaves | None = None
        self._artifact_sink: ArtifactSink | None = None
        self._agents = agents
        self.checks_local = os.environ.get("CREAMAS_CHECK_LOCAL") == "1"
        self.steps = Steps(self)
        self.endpoint = Endpoint(
            self._answer, self.codec, self._on_event, self._on_link, self.steps.frames.note_end
        )
        self._known: dict[str, Proxy] = {}
        self._peers: dict[str, Identity] = {}
        self._yield_at = 0.0

    def become_master(self, slaves: Slaves, artifact_sink: ArtifactSink) -> None:
        """Be the network of a master environment, whose calls know about slaves and their losses.

        Args:
            artifact_sink: Called with the base URL of its environment and each artifact that
                arrives.
        """
        self._slaves = slaves
        self._artifact_sink = artifact_sink

    def forget(self, base_urls: Collection[str]) -> None:
        """Drop what is remembered of environments that are gone, connections included."""
        for url in base_urls:
            self._peers.pop(url, None)
            self.steps.numbers.pop(url, None)
            self.endpoint.drop(url)
        gone = tuple(base_urls)
        self._known = {a: proxy for a, proxy in self._known.items() if not a.startswith(gone)}

    def announce(self, url: str, routes: Mapping[str, Route]) -> None:
        """Tell the environment of that `base_url` what `Endpoint.move` takes, unless it is gone.

        It knows that before it gets any later call.
        """
        if routes and (link := self.endpoint.link(url)) is not None:
            plain = {moved: tuple(route) for moved, route in routes.items()}
            link.post(MOVES_EVENT, self.codec.encode(plain))

    # ---- references: agents and proxies as values

    def describe(self, obj: Any) -> tuple[str, str]:
        """Address and class name under which an agent or proxy travels."""
        if isinstance(obj, Proxy):
            return obj.addr, obj.class_name
        return obj.addr, class_name(type(obj))

    def resolve(self, address: str, name: str) -> Proxy:
        """The proxy that an agent or proxy arrives as."""
        return Proxy(self, address, name)

    # ---- calls out

    async def connect(
        self, address: str, timeout: float | None, *, check_again: bool = False
    ) -> Proxy:
        """A proxy of the agent at ``address``, after a check that there is one.

        Args:
            check_again: Do so even if it was checked before.

        Raises:
            ValueError: The address is malformed.
            ConnectionLost, HandshakeError: Its environment cannot be reached.
            UnknownAgent: Its environment has no such agent.
        """
        if time.perf_counter() > self._yield_at:
            await self._yield()
        proxy = self._known.get(address)
        if proxy is not None and not check_again:
            return proxy
        url, number = locate(address)
        if address.startswith(self.base_url):
            await trio.lowlevel.checkpoint()  # the caller may try until there is one
            name = class_name(type(self.agent(number)))
        else:
            if self._slaves is not None and self._slaves.holds(address):
                await self._slaves.wait_for(address)
                timeout = 0  # a slave listens for as long as it lives
            elif self._slave_at(url) is not None and not self.slaves_return:
                timeout = 0  # if the connection has ended, the slave has
            try:
                link = await self.endpoint.connection(url, timeout=timeout)
                name = self.codec.decode(await link.call(number, "", _NOTHING))
            except ConnectionLost as error:
                raise await self.explain(address, error) from None
        return self._remember(address, Proxy(self, address, name))

    def proxy_in_step(self, address: str) -> Proxy | None:
        """A proxy of an agent, whether it exists or not, if calls of it go in rounds now.

        Raises:
            ValueError: The address is malformed.
        """
        rounds = self.steps.rounds
        if rounds is None or rounds.place(address) is None:
            return None
        proxy = self._known.get(address)
        if proxy is None:
            locate(address)
            proxy = self._remember(address, Proxy(self, address))
        return proxy

    def _remember(self, address: str, proxy: Proxy) -> Proxy:
        if len(self._known) >= MAX_KNOWN_PROXIES:
            self._known.clear()
        self._known[address] = proxy
        return proxy

    def call_agent(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Call an exposed method of the agent at ``address``, here or elsewhere.

        To be awaited; may be called on any loop, and runs on the environment's.
        """
        if not self.loop.is_current():
            return self.loop.call(self.call_agent, address, method, args, kwargs)
        rounds = self.steps.rounds
        if rounds is not None:
            if (place := rounds.place(address)) is not None:
                return rounds.call(place, method, args, kwargs)
            if address.startswith(self.base_url):
                self.steps.note_outside(address, method)
        return self.call_at_once(address, method, args, kwargs)

    def call_at_once(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """As `call_agent`, on the environment's loop, and never in rounds."""
        if address.startswith(self.base_url):
            return self._call_here(address, method, args, kwargs)
        return self._call_there(address, method, args, kwargs)

    async def _call_there(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        payload = self.codec.encode((args, kwargs))
        return self.decode_reply(address, method, await self.send(address, method, payload))

    def decode_reply(self, address: str, method: str, payload: Payload) -> Any:
        """What a method of the agent at ``address`` has returned.

        Raises:
            DecodeError: It cannot be decoded here.
        """
        try:
            return self.codec.decode(payload)
        except DecodeError as error:
            raise undecodable_reply(address, method, error) from error

    async def send(
        self,
        address: str,
        method: str,
        payload: Payload,
        *,
        at_once: bool = False,
        last_seconds: float | None = None,
    ) -> Payload:
        """Call a method of an agent elsewhere, arguments and result encoded.

        Args:
            at_once: Do not wait for the restart of the slave that is called.
            last_seconds: Give the call up for good after these.

        Raises:
            DeadlineExceeded: The base timeout passed, or ``last_seconds`` did.
        """
        if self._slaves is not None and not at_once:
            await self._slaves.wait_for(address)
        url, number = locate(address)
        try:
            link = self.endpoint.link(url) or await self.endpoint.connection(url)
            if last_seconds is not None:
                return await link.call(
                    number, method, payload, timeout=last_seconds, acknowledge_seconds=0
                )
            timeout = None if self._slaves is None else BaseTimeout.call
            return await link.call(number, method, payload, timeout=timeout)
        except ConnectionLost as error:
            raise await self.explain(address, error) from None

    async def _yield(self) -> None:
        """Let others act, so that an act of many short calls stays cancellable."""
        await trio.lowlevel.checkpoint()
        self._yield_at = time.perf_counter() + YIELD_SECONDS

    async def _call_here(
        self, address: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        number = address[len(self.base_url) :]
        agent = self.agent(int(number) if is_number(number) else locate(address)[1])
        if self.checks_local:
            args, kwargs = self._through_codec((args, kwargs), "args")
        if time.perf_counter() > self._yield_at:
            await self._yield()
        try:
            value = start_call(exposed_method(agent, name), args, kwargs)
            if is_awaitable(value):
                value = await value
        except BaseException as error:
            reraise_cancellation(error)
            raise _reported(address, error) from error
        return self._through_codec(value, f"the reply of {name}") if self.checks_local else value

    async def relay(self, address: str, request: Request) -> Payload:
        """Pass on a call to the agent at ``address``, the payload unopened in both directions.

        Args:
            request: The call; its method is "" to ask for the agent's class only.

        Raises:
            ValueError: The address is malformed.
            Exception: As `call_agent`.
        """
        if not address.startswith(self.base_url):
            return await self.send(address, request.method, request.payload)
        answer = self._answer(request._replace(target=locate(address)[1]))
        return answer if isinstance(answer, Payload) else await answer

    def _through_codec(self, value: Any, root: str) -> Any:
        return self.codec.decode(self.codec.encode(value, root=root))

    async def explain(self, address: str, error: ConnectionLost) -> Exception:
        """What the loss of the connection to ``address`` means."""
        if self._slaves is not None:
            return await self._slaves.explain_loss(address, error)
        peer = self._slave_at(address.rpartition("/")[0] + "/")
        if peer is None:
            return error
        # A slave's connections end only with the slave; how it ended is the supervisor's to know.
        return SlaveLost(
            f"the slave {peer.address} (pid {peer.pid}) is gone",
            address=f"{peer.address}0",
            pid=peer.pid,
            may_have_run=error.may_have_run,
        )

    def _slave_at(self, url: str) -> Identity | None:
        """The slave that is at ``url``, or was, if it has ever been connected with this network."""
        peer = self._peers.get(url)
        return peer if peer is not None and peer.role == "slave" else None

    # ---- calls in

    def agent(self, number: int | None) -> Any:
        """The agent of that number; `UnknownAgent` if there is none."""
        if isinstance(number, int) and 0 <= number < len(self._agents):
            return self._agents[number]
        raise UnknownAgent(f"there is no agent {self.base_url}{number}")

    def reported(self, number: int, error: BaseException) -> BaseException:
        """What the caller of the agent of that number gets for an error of its code."""
        return _reported(f"{self.base_url}{number}", error)

    def _answer(self, request: Request) -> Answer:
        """Answer a call: at once, unless its method is a coroutine function."""
        agent, name = self.agent(request.target), request.method
        if not name:
            return self.codec.encode(class_name(type(agent)))
        if self.steps.rounds is not None and name not in ROUNDS_METHODS:
            self.steps.note_outside(agent.addr, name)
        method = exposed_method(agent, name)
        call = self.codec.decode(request.payload)
        if not is_call(call):
            raise BadArguments(f"{name}: expected (args, kwargs)")
        args, kwargs = call
        try:
            value = method(*args, **kwargs)
            waits = type(value) is CoroutineType or is_awaitable(value)
        except AgentErrors:
            raise
        except BaseException as error:
            raise _reported(agent.addr, bad_arguments(method, error) or error) from error
        if waits:
            return self._finish(agent, name, value)
        try:
            return self.codec.encode(value, root=f"the reply of {name}")
        except EncodeError as error:
            raise cannot_travel(self.codec, self._agents, agent, name, value, error) from error

    async def _finish(self, agent: Any, method: str, value: Awaitable[Any]) -> Payload:
        try:
            result = await value
        except BaseException as raised:
            reraise_cancellation(raised)
            error = unwrapped(raised)
            if isinstance(error, (AgentErrors, StepOverran)):
                late = getattr(error, "addresses", ())
                done = error.failures, error.results, late
                raise encodable(self.codec, self._agents, *done) from None
            raise _reported(agent.addr, raised) from raised
        try:
            return self.codec.encode(result, root=f"the reply of {method}")
        except EncodeError as refused:
            raise cannot_travel(
                self.codec, self._agents, agent, method, result, refused
            ) from refused

    # ---- artifacts travel to the master

    def publish(self, artifact: Any) -> None:
        """Send an artifact to the master, ahead of the next answer to it.

        Raises:
            EncodeError: The artifact cannot travel.
        """
        master = self.steps.master
        if master is not None and master.alive:
            payload = self.codec.encode(artifact, root="artifact")
            name = f"{ARTIFACT_EVENT}:{text_of(self.steps.number)}"
            master.post(name, payload, with_answer=True)

    def _on_link(self, link: Connection, peer: Identity) -> None:
        self._peers[peer.address] = peer
        if peer.role == "master":
            self.steps.master = link
        elif self._slaves is not None:
            # Before any call: slaves that are started again at once need each other's.
            self.announce(peer.address, self.endpoint.routes)

    def _on_event(self, link: Connection, name: str, payload: Payload) -> None:
        # The connection logs what this raises, such as an unknown class, and lives on.
        if self.steps.take_event(link, name, payload):
            return
        event, _, number = name.partition(":")
        if event == ARTIFACT_EVENT and self._artifact_sink is not None:
            self._artifact_sink(link.name, order_of(number), self.codec.decode(payload))
        elif event == MOVES_EVENT and link is self.steps.master:
            plain = self.codec.decode(payload)
            self.endpoint.move({moved: Route(*route) for moved, route in plain.items()})


def _reported(address: str, error: BaseException) -> BaseException:
    """The error that the caller gets for an error of an agent's code.

    A real Ctrl-C stays what it is, and so does a refusal of this very call. A refusal that the
    agent received from another agent becomes an `AgentError`.
    """
    if is_ctrl_c(error):
        return error
    refused = unwrapped(error)
    if isinstance(refused, CallRefused) and refused.address == address:
        return refused.by("")  # for the next caller, this is not a refusal of its own call
    return AgentError.from_exception(address, error)
