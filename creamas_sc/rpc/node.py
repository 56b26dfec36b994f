"""What an environment does over its connections: calls out, calls in, and the news of artifacts."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import trio
from anyio.abc import SocketListener, TaskStatus

from creamas_sc.core.agent import Agent
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    CallRefused,
    ConnectionLost,
    EncodeError,
    SlaveLost,
    StepOverran,
    UnknownAgent,
    agent_errors,
    step_overran,
    unwrapped,
)
from creamas_sc.rpc.auth import Membership
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.endpoint import Endpoint, locate, split_address
from creamas_sc.rpc.exposed import Proxy, exposed_method, start_call, to_await
from creamas_sc.rpc.serving import Request
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.event_loop import LoopHandle, is_ctrl_c
from creamas_sc.runtime.nurseries import cancellation_in
from creamas_sc.serializers import follow
from creamas_sc.wire.codec import Codec, Payload, Serializer
from creamas_sc.wire.encode_errors import is_call
from creamas_sc.wire.handshake import Identity

if TYPE_CHECKING:
    from creamas_sc.core.artifact import Artifact

__all__ = ["Node"]

ARTIFACT_EVENT = "artifact"
# A manager's methods whose reply is a list of what its agents returned.
STEP_METHODS = frozenset({"trigger_all", "trigger_all_within"})
# Proxies remembered, so that connecting again to a known agent costs no round trip.
MAX_KNOWN_PROXIES = 100_000

# So often a loop of calls within the environment yields to the scheduler.
YIELD_SECONDS = 0.01

_NOTHING = Payload(b"")

ExplainLoss = Callable[[str, ConnectionLost], Awaitable[Exception]]
ArtifactSink = Callable[[str, "Artifact"], None]


class Node:
    """The calls of one environment's agents, within it and to others.

    Args:
        agents: The environment's agents; an agent's number is its position.
        base_url: The environment's address, as asked for.
        serializers: How to carry the user's classes.
    """

    def __init__(
        self, agents: Sequence[Agent], base_url: str, serializers: Sequence[Serializer]
    ) -> None:
        self.base_url = base_url
        self.codec = Codec(serializers, references=self)
        # An agent's module, imported later, may register classes of its own.
        follow(self.codec.add)
        self.home: LoopHandle
        self.artifact_sink: ArtifactSink | None = None
        self.explain_loss: ExplainLoss | None = None
        # Awaited before each call out, with the address; what it raises fails the call.
        self.before_call: Callable[[str], Awaitable[object]] | None = None
        self.call_timeout: Callable[[], float | None] = lambda: None
        self._agents = agents
        self._check_local = os.environ.get("CREAMAS_CHECK_LOCAL") == "1"
        self._endpoint = Endpoint(self._serve, self.codec, self._on_event, self._on_link)
        self._known: dict[str, Proxy] = {}
        self._peers: dict[str, Identity] = {}
        self._upstream: Connection | None = None
        self._unsent: list[Payload] = []
        self._give_way_at = 0.0

    async def run(
        self,
        listener: SocketListener,
        member: Membership,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be reachable at ``listener`` until `aclose`; see `Endpoint.run`."""
        identity = Identity(member.simulation, member.key, member.role, self.base_url, os.getpid())
        await self._endpoint.run(listener, identity, task_status=task_status)

    async def aclose(self) -> None:
        """Close the listener and all connections."""
        await self._endpoint.aclose()

    def forget(self, base_urls: Collection[str]) -> None:
        """Drop what is remembered of environments that are gone, connections included."""
        for url in base_urls:
            self._peers.pop(url, None)
            self._endpoint.drop(url)
        gone = tuple(base_urls)
        self._known = {a: proxy for a, proxy in self._known.items() if not a.startswith(gone)}

    # ---- references: agents and proxies as values

    types = (Agent, Proxy)

    def describe(self, obj: Any) -> tuple[str, str]:
        """Address and class name under which an agent or proxy travels."""
        if isinstance(obj, Proxy):
            return obj.addr, obj.class_name
        return obj.addr, class_name(type(obj))

    def resolve(self, address: str, name: str) -> Proxy:
        """The proxy that an agent or proxy arrives as."""
        return Proxy(self, address, name)

    # ---- calls out

    async def connect(self, address: str, timeout: float | None, *, anew: bool = False) -> Proxy:
        """A proxy of the agent at ``address``, after a check that there is one.

        Args:
            anew: Check again what was checked before.

        Raises:
            ValueError: The address is malformed.
            ConnectionLost, HandshakeError: Its environment cannot be reached.
            UnknownAgent: Its environment has no such agent.
        """
        proxy = self._known.get(address)
        if proxy is not None and not anew:
            return proxy
        host, port, number = split_address(address)
        if address.startswith(self.base_url):
            name = class_name(type(self.agent(number)))
        else:
            if self.before_call is not None:
                await self.before_call(address)
            try:
                link = await self._endpoint.connection(host, port, timeout=timeout)
                name = self.codec.decode(await link.call(number, "", _NOTHING))
            except ConnectionLost as error:
                raise await self.explain(address, error) from None
        if len(self._known) >= MAX_KNOWN_PROXIES:
            self._known.clear()
        proxy = self._known[address] = Proxy(self, address, name)
        return proxy

    def call_agent(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Call an exposed method of the agent at ``address``, here or elsewhere.

        To be awaited; whoever is not at home when calling may be on any loop.
        """
        if not self.home.is_current():
            return self.home.call(self.call_agent, address, method, args, kwargs)
        if address.startswith(self.base_url):
            return self._call_here(address, method, args, kwargs)
        return self._call_there(address, method, args, kwargs)

    async def _call_there(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        payload = self.codec.encode((args, kwargs))
        return self.codec.decode(await self.send(address, method, payload))

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
            at_once: Do not wait for what other calls wait for first.
            last_seconds: When to give it up for good, if it is not answered by then.

        Raises:
            DeadlineExceeded: The base timeout passed, or ``last_seconds`` did.
        """
        if self.before_call is not None and not at_once:
            await self.before_call(address)
        url, number = locate(address)
        try:
            link = self._endpoint.link(url) or await self._open(address)
            if last_seconds is not None:
                return await link.call(
                    number, method, payload, timeout=last_seconds, acknowledge_seconds=0
                )
            return await link.call(number, method, payload, timeout=self.call_timeout())
        except ConnectionLost as error:
            raise await self.explain(address, error) from None

    def link(self, address: str) -> Connection | None:
        """The connection to the environment of the agent at ``address``, if it is open."""
        return self._endpoint.link(locate(address)[0])

    async def _open(self, address: str) -> Connection:
        host, port, _ = split_address(address)
        return await self._endpoint.connection(host, port)

    async def _call_here(
        self, address: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        number = address[len(self.base_url) :]
        agent = self.agent(int(number) if number.isdecimal() else split_address(address)[2])
        if self._check_local:
            args, kwargs = self._through_codec((args, kwargs), "args")
        if time.perf_counter() > self._give_way_at:
            # An act of many short calls stays cancellable, and lets others act.
            await trio.lowlevel.checkpoint()
            self._give_way_at = time.perf_counter() + YIELD_SECONDS
        try:
            value = start_call(exposed_method(agent, name), args, kwargs)
            if to_await(value):
                value = await value
        except BaseException as error:
            cancelled = cancellation_in(error)
            if cancelled is not None:
                raise cancelled from None
            raise _told(address, error) from error
        return self._through_codec(value, f"the reply of {name}") if self._check_local else value

    async def relay(self, address: str, method: str, payload: Payload) -> Payload:
        """Call a method of the agent at ``address`` for somebody else, the body unopened both ways.

        Args:
            method: "" to ask for the agent's class only.

        Raises:
            ValueError: The address is malformed.
            Exception: As `call_agent`.
        """
        if not address.startswith(self.base_url):
            return await self.send(address, method, payload)
        answer = self._answer(split_address(address)[2], method, payload)
        return answer if isinstance(answer, Payload) else await answer

    def _through_codec(self, value: Any, root: str) -> Any:
        return self.codec.decode(self.codec.encode(value, root=root))

    async def explain(self, address: str, error: ConnectionLost) -> Exception:
        """What the loss of the connection to ``address`` means."""
        if self.explain_loss is not None:
            return await self.explain_loss(address, error)
        peer = self._peers.get(address.rpartition("/")[0] + "/")
        if peer is None or peer.role != "slave":
            return error
        # Slaves end connections only with themselves; how this one ended its supervisor knows.
        return SlaveLost(
            f"the slave {peer.address} (pid {peer.pid}) is gone",
            address=f"{peer.address}0",
            pid=peer.pid,
            may_have_run=error.may_have_run,
        )

    # ---- calls in

    def agent(self, number: int | None) -> Agent:
        """The agent of that number; `UnknownAgent` if there is none."""
        if isinstance(number, int) and 0 <= number < len(self._agents):
            return self._agents[number]
        raise UnknownAgent(f"there is no agent {self.base_url}{number}")

    def _serve(self, request: Request) -> Payload | Awaitable[Payload]:
        return self._answer(request.target, request.method, request.payload)

    def _answer(
        self, number: int | None, name: str, payload: Payload
    ) -> Payload | Awaitable[Payload]:
        """Answer a call: at once if its method is no coroutine function."""
        agent = self.agent(number)
        if not name:
            return self.codec.encode(class_name(type(agent)))
        method = exposed_method(agent, name)
        call = self.codec.decode(payload)
        if not is_call(call):
            raise BadArguments(f"{name}: expected (args, kwargs)")
        try:
            value = start_call(method, *call)
        except AgentErrors:
            raise
        except BaseException as error:
            raise _told(agent.addr, error) from error
        if to_await(value):
            return self._finish(agent, name, value)
        return self._encode_reply(agent, name, value)

    async def _finish(self, agent: Agent, method: str, value: Awaitable[Any]) -> Payload:
        try:
            result = await value
        except BaseException as raised:
            cancelled = cancellation_in(raised)
            if cancelled is not None:
                raise cancelled from None
            error = unwrapped(raised)
            if isinstance(error, AgentErrors):
                raise self._encodable(error.failures, error.results) from None
            if isinstance(error, StepOverran):
                late = error.addresses
                raise self._encodable(error.failures, error.results, late) from None
            raise _told(agent.addr, raised) from raised
        return self._encode_reply(agent, method, result)

    def _encode_reply(self, agent: Agent, method: str, value: Any) -> Payload:
        try:
            return self.codec.encode(value, root=f"the reply of {method}")
        except EncodeError as error:
            if method in STEP_METHODS and isinstance(value, list):
                raise self._encodable({}, value) from None
            raise AgentError.from_exception(agent.addr, error) from error

    def _encodable(
        self, failures: Mapping[str, AgentError], results: list[Any], late: Sequence[str] = ()
    ) -> AgentErrors | StepOverran:
        """A step's failures, with those added whose results cannot travel."""
        failures, kept = dict(failures), []
        without = {*failures, *late}
        acted = [a.addr for a in self._agents[1:] if a.addr not in without]
        for address, result in zip(acted, results, strict=False):
            try:
                self.codec.encode(result, root="the result of act")
            except EncodeError as error:
                failures[address] = AgentError.from_exception(address, error)
            else:
                kept.append(result)
        if late:
            return step_overran(late, failures, kept)
        return agent_errors("failed to act", failures, kept)

    # ---- artifacts travel to the master

    def publish(self, artifact: Artifact) -> None:
        """Tell the master of an artifact, ahead of the next reply to it.

        Raises:
            EncodeError: The artifact cannot travel.
        """
        if self._upstream is None or not self._upstream.alive:
            return
        self._unsent.append(self.codec.encode(artifact, root="artifact"))
        if not self._upstream.serving:
            self._send_artifacts()

    def _send_artifacts(self) -> None:
        unsent, self._unsent = self._unsent, []
        for payload in unsent:
            assert self._upstream is not None
            self._upstream.post(ARTIFACT_EVENT, payload)

    def _on_link(self, link: Connection, peer: Identity) -> None:
        self._peers[peer.address] = peer
        if peer.role == "master":
            self._upstream = link
            link.before_reply = self._send_artifacts

    def _on_event(self, link: Connection, name: str, payload: Payload) -> None:
        # What this raises, of a class that is unknown here, say, the connection logs and lives on.
        if name == ARTIFACT_EVENT and self.artifact_sink is not None:
            self.artifact_sink(link.name, self.codec.decode(payload))


def _told(address: str, error: BaseException) -> BaseException:
    """How an error of an agent's code reaches its caller.

    A real Ctrl-C stays what it is, and so does a refusal of this very call. One that the agent got
    from another is an error of the agent's.
    """
    if is_ctrl_c(error):
        return error
    refused = unwrapped(error)
    if isinstance(refused, CallRefused) and refused.address == address:
        return refused.by("")  # for whoever called, it is no refusal of theirs
    return AgentError.from_exception(address, error)
