"""A node that has joined a supervisor, as this sees it.

The node connects. From then on each end calls the other (types: `supervisor_client.messages`)::

    node to supervisor   join(about) -> {"name", "lease"}     first
                         renew()                               each `RENEW_SECONDS`
                         leave(why)                            nothing runs there any more
                         event exited: an ActorExit
    supervisor to node   start(orders, timeout, code) -> [StartedActor]    all or none
                         stop(slots, grace, payload) -> [StopResult]
                         loads(slots) -> {slot: ProcessLoad}
                         stacks(slots, seconds) -> {slot: fields of an Answer}
                         forget(simulation)                    its code may go
                         end(why)                              answered when nothing runs there

Slots are unique on the node: a `RemoteActor` has a key for its own.

    connected --join--> joined --leave, or the answer to end--> left
                          `------its connection ends, or it is not heard------> lost

A node ends what it runs when its lease is over, which it counts from the last renewal it *sent* and
that was answered. Here the lease counts from the last one that was *received*, which is later. So
past that, and a margin, nothing runs there, whatever became of the node: `clear_at`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio
from anyio.abc import ByteStream

from creamas_sc.errors import CallRefused, CreamasError
from creamas_sc.foreign import printable, shorten, text_of
from creamas_sc.runtime.nurseries import first_of
from creamas_sc.runtime.process_load import ProcessLoad
from creamas_sc.supervisor_client import messages
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import FrameReader
from supervisor import timeouts
from supervisor.nodes.received import exit_of, load_of
from supervisor.rpc_server import CODEC, MethodServer

if TYPE_CHECKING:
    from supervisor.nodes.registry import NodeRegistry
    from supervisor.nodes.remote_actor import RemoteActor

log = logging.getLogger(__name__)

# Of what a node sends: its slaves' reports.
MAX_FRAME_BYTES = 1 << 28
MAX_UNREAD_BYTES = 64 << 20
_CANCELLED = "the supervisor ended"


class JoinedNode:
    """A node, from its connection to its end.

    Args:
        stream: Connected to it, and proved to be a node's; owned from here on.
        registry: Which it joins.
        lease: Seconds.
        peer: The other end of the stream, in messages.

    Attributes:
        name: In the registry; empty before it has joined.
        about: What it says of itself.
        turns: Limits how many of its actors start at once.
        actors: Those that it runs or starts, by key.
        why: How it ended; empty before.
        left: It ended in order: nothing runs there any more.
        alive: It has joined, and has not ended.
    """

    name = ""
    about: messages.NodeAbout
    why = ""
    left = False
    alive = False

    def __init__(self, stream: ByteStream, registry: NodeRegistry, lease: float, peer: str) -> None:
        self.lease = lease
        self.turns = trio.CapacityLimiter(timeouts.MAX_STARTING)
        self.actors: dict[str, RemoteActor] = {}
        self._registry = registry
        self._peer = peer
        self._joined = trio.Event()
        self._over = trio.Event()
        self._since = time.time()
        self._heard_at = trio.current_time()
        self._code_lock = trio.Lock()
        self._code: dict[str, dict[str, int]] = {}
        self._server = MethodServer(
            stream,
            {"join": self._join, "renew": self._renew, "leave": self._leave},
            f"the node at {peer}",
            FrameReader(MAX_FRAME_BYTES),
            max_unread_bytes=MAX_UNREAD_BYTES,
            on_event=self._take_event,
        )

    # ---- life

    async def run(self) -> None:
        """Be its end of the connection, until either ends it."""
        connection = self._server.connection
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve)
            try:
                async with trio.open_nursery() as self._tasks:
                    try:
                        await self._until_over()
                    finally:
                        self.drop(_CANCELLED)  # unless it has ended otherwise
                        self._tasks.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    await connection.aclose()

    async def _serve(self) -> None:
        await self._server.connection.run()
        self.drop("its connection ended")

    async def _until_over(self) -> None:
        # It has the key, and starts its tree first.
        with trio.move_on_after(timeouts.START_SECONDS + timeouts.JOIN_SECONDS):
            await first_of(self._joined, self._over)
        if not self._joined.is_set():
            self.drop("it did not join in time")
        while not self._over.is_set():
            with trio.move_on_at(self.clear_at):
                await self._over.wait()
            if trio.current_time() >= self.clear_at:
                self.drop(f"it was not heard for {self.lease:g} s")

    @property
    def clear_at(self) -> float:
        """When nothing runs there any more, if it is not heard again; in trio's time."""
        return self._heard_at + self.lease + timeouts.LEASE_MARGIN_SECONDS

    def drop(self, why: str) -> None:
        """End it, unless it has ended already.

        Args:
            why: A clause about it.
        """
        if self._over.is_set():
            return
        self.why = why
        self._over.set()
        if self.alive:
            self.alive = False
            self._registry.remove(self)
            level = logging.INFO if self.left else logging.WARNING
            log.log(level, "%s", self.describe_end().removeprefix("its "))
        else:
            log.warning("a node at %s is refused: %s", printable(self._peer), printable(why))

    def describe_end(self) -> str:
        """How it ended, in words."""
        how = "has left" if self.left else "is lost"
        return f"its node {self.name} {how}: {self.why or _CANCELLED}"

    async def end(self, why: str) -> None:
        """Have it end itself, if it has ended all that it ran; within a bound.

        Otherwise the end of the connection makes it do both.
        """
        try:
            with trio.move_on_after(timeouts.NODE_END_SECONDS):
                if not self.actors:
                    await self.call("end", why)
                    self.left = True
        except CreamasError as error:
            log.debug("node %s was not ended in order: %s", self.name, error)
        self.drop(why)

    # ---- what it asks and says

    async def _join(self, about: object) -> dict[str, object]:
        if self._joined.is_set():
            raise CallRefused(f"this node has joined already, as {self.name}")
        try:
            self.name = self._registry.admit(self, about)
        except CreamasError as error:
            self.drop(text_of(error))
            raise
        self._hear()
        self.alive = True
        self._joined.set()
        return {"name": self.name, "lease": self.lease}

    async def _renew(self) -> None:
        if not self.alive:
            raise CallRefused("this node has not joined")
        self._hear()

    def _hear(self) -> None:
        self._heard_at = trio.current_time()

    async def _leave(self, why: object) -> None:
        self.left = self.alive
        self.drop(printable(shorten(str(why))))

    def _take_event(self, event: str, payload: Payload) -> None:
        if event != "exited" or not self.alive:
            return
        try:
            message = exit_of(CODEC.decode(payload))
        except CreamasError as error:
            self.drop(text_of(error))
            return
        actor = self.actors.get(message["slot"])
        if actor is not None:
            actor.note_exit(message)

    # ---- what is asked of it

    async def call(self, method: str, *args: Any) -> Any:
        """Call one of its methods; raises as `Connection.call` does."""
        return await self._server.call(method, *args)

    def start_soon(self, function: Any, *args: Any) -> None:
        """Run a task until the node's end; the node must be alive."""
        self._tasks.start_soon(function, *args)

    async def send_code(self, code: messages.Code | None) -> None:
        """Send what it lacks of a simulation's code."""
        if code is None:
            return
        simulation, files = code["simulation"], code["files"]
        async with self._code_lock:
            known = self._code.get(simulation)
            lacking = {k: v for k, v in files.items() if known is None or known.get(k) != v[0]}
            if lacking or known is None:
                sent: messages.Code = {"simulation": simulation, "files": lacking}
                await self.call("start", [], timeouts.START_SECONDS, sent)
                news = {name: changed for name, (changed, _) in lacking.items()}
                self._code[simulation] = {**(known or {}), **news}

    def forget(self, simulation: str) -> None:
        """Have it forget a simulation's code, if it has any."""
        if self.alive and self._code.pop(simulation, None) is not None:
            self.start_soon(self._forget, simulation)

    async def _forget(self, simulation: str) -> None:
        try:
            await self.call("forget", simulation)
        except CreamasError as error:
            log.debug("node %s does not forget: %s", self.name, error)

    async def loads(self, actors: Sequence[RemoteActor]) -> Mapping[str, ProcessLoad]:
        """What these take of its machine, by slot; nothing if it does not answer in time."""
        slots = {actor.key: actor.slot for actor in actors}
        try:
            with trio.move_on_after(timeouts.DESCRIBE_SECONDS):
                answer = await self.call("loads", list(slots))
                return {slot: load_of(answer[key]) for key, slot in slots.items() if key in answer}
        except (CreamasError, TypeError) as error:
            log.debug("node %s does not tell its loads: %s", self.name, error)
        return {}

    async def stacks(self, actors: Sequence[RemoteActor], seconds: float) -> dict[str, Any]:
        """Where their code is just now, by slot, as `stack_dumps.Answer` has it.

        Args:
            seconds: How long their slowest has.
        """
        slots = {actor.key: actor.slot for actor in actors}
        problem = f"its node {self.name} does not answer"
        answers = dict.fromkeys(slots.values(), ("unknown", None, (), problem))
        try:
            with trio.move_on_after(seconds + timeouts.NODE_ANSWER_SECONDS):
                told = await self.call("stacks", list(slots), seconds)
                return answers | {slots[key]: tuple(told[key]) for key in slots if key in told}
        except (CreamasError, TypeError) as error:
            log.debug("node %s does not tell where its slaves are: %s", self.name, error)
        return answers

    def info(self) -> messages.NodeInfo:
        """What is known of it."""
        return {
            **self.about,
            "name": self.name,
            "processes": len(self.actors),
            "heard": trio.current_time() - self._heard_at,
            "since": self._since,
        }
