"""An actor on a node, for its pool the same as one that runs here.

`RemoteActor._run`, a task of the node, sees it from its start to ``reported``. What the node says,
or the node's end, sets the events (see `tractor_adapter.actors` for their order)::

    the start is answered               ready
    the start has failed                finished, reported
    exited, or the answer to a stop     finished, reported
    the node is lost, or has left       finished, reported; `clear_at` says when it is surely gone

So a stop is answered at once for what was on a lost node, and is bounded for a node that is silent
but not lost yet: then the actor stays in its slot until one of these comes about. The request to
stop stays, too; it belongs to the node, not to who made it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import trio

from creamas_sc.errors import ConnectionLost, CreamasError, StartError
from creamas_sc.foreign import text_of
from creamas_sc.supervisor_client.messages import (
    ActorEnd,
    ActorExit,
    ActorOrder,
    Code,
    StopResult,
    describe_exit,
)
from supervisor import timeouts
from supervisor.actors.escalation import StopStage
from supervisor.nodes.joined_node import JoinedNode
from supervisor.nodes.received import exit_of, only, started_of, stop_result_of

log = logging.getLogger(__name__)


class RemoteActor:
    """One actor on a node.

    Args:
        slot, name, number: As of `Actor`.
        joined: The node.
        key: Its slot on the node.
        code: What it loads of the user's.

    Attributes:
        joined, node: The node, and its name.
        ready, info, finished, announced, stopping, reported: As of `Actor`.
        clear_at: When it is surely gone, in trio's time; None if it is known to be.
    """

    def __init__(
        self, slot: str, name: str, number: int, joined: JoinedNode, key: str, code: Code | None
    ) -> None:
        self.slot = slot
        self.name = name
        self.number = number
        self.key = key
        self.node = joined.name
        self.pid = 0
        self.info = b""
        self.ready = trio.Event()
        self.finished = trio.Event()
        self.reported = trio.Event()
        self.announced = self.stopping = False
        self.clear_at: float | None = None
        self.joined = joined
        self._code = code
        self._starting = trio.CancelScope()
        self._over = trio.Event()
        self._failure = ""
        self._exit: ActorExit | None = None

    def __str__(self) -> str:
        pid = f"pid {self.pid} " if self.pid else ""
        return f"{self.name} ({pid}on node {self.node})"

    # ---- its messages to the owner

    def failure(self) -> str:
        """Why it did not come up."""
        if self._failure.startswith(self.name):  # what the node says names it, too
            return f"{self._failure} (on node {self.node})"
        if self._exit is not None:
            error = self._exit["error"]
            how = describe_exit(self._exit["exit_code"], self._exit["signal"])
            return f"{self} failed to start: {error}" if error else f"{self} {how} while starting"
        return f"{self} did not start: {self._failure}"

    def exit_message(self) -> ActorExit:
        """The event of its end."""
        returned = self._exit is not None and self._exit["returned"]
        return {**self._end(), "expected": self.stopping, "returned": returned}

    def _end(self) -> ActorEnd:
        known = self._exit
        return {
            "slot": self.slot,
            "pid": self.pid,
            "exit_code": None if known is None else known["exit_code"],
            "signal": None if known is None else known["signal"],
            "error": self._failure or None if known is None else known["error"],
            "traceback": "" if known is None else known["traceback"],
        }

    # ---- its life

    def begin(self, order: ActorOrder, on_end: Callable[[RemoteActor], None]) -> None:
        """Have the node start it; wait for ``ready`` or ``finished`` next.

        Args:
            on_end: Called when all is over, before ``reported`` is set.

        Raises:
            StartError: The node is gone.
        """
        if not self.joined.alive:
            raise StartError(f"{self.name} did not start: {self.joined.describe_end()}")
        seconds = trio.current_effective_deadline() - trio.current_time()
        self.joined.actors[self.key] = self
        self.joined.start_soon(self._run, order, min(seconds, timeouts.START_SECONDS), on_end)

    async def _run(
        self, order: ActorOrder, seconds: float, on_end: Callable[[RemoteActor], None]
    ) -> None:
        try:
            with self._starting:
                await self._start(order, trio.current_time() + seconds)
            await self._over.wait()
        finally:
            if not self._over.is_set():
                self._failure = self.joined.describe_end()
                self.clear_at = None if self.joined.left else self.joined.clear_at
            del self.joined.actors[self.key]
            self.finished.set()
            on_end(self)
            self.reported.set()

    async def _start(self, order: ActorOrder, deadline: float) -> None:
        sent: Any = {**order, "slot": self.key, "node": ""}
        try:
            async with self.joined.turns:
                await self.joined.send_code(self._code)
                seconds = max(deadline - trio.current_time(), 0.0)
                answer = await self.joined.call("start", [sent], seconds, None)
            started = started_of(only(answer))
        except StartError as error:  # and nothing of it is left
            self._failure = text_of(error)
            self._over.set()
        except ConnectionLost:  # the node's end follows
            log.debug("%s: the connection ended during its start", self)
        except CreamasError as error:  # the stop that follows makes sure that it is gone
            self._failure = text_of(error)
            self.finished.set()
        else:
            self.pid, self.info = started["pid"], started["info"]
            self.ready.set()
            if self._exit is not None:  # its report overtook the answer
                self.note_exit(self._exit)

    def note_exit(self, message: ActorExit) -> None:
        """The node reports its end."""
        if message["expected"] and not self.stopping:
            error = message["error"] or f"its node {self.node} has stopped it"
            message = {**message, "error": error}
        self._exit = message
        if self.ready.is_set() and message["pid"] == self.pid:
            self._over.set()

    # ---- its end

    async def stop(
        self, grace_seconds: float, payload: bytes = b"", first: StopStage = StopStage.REQUEST
    ) -> StopResult:
        """Stop it; returns when it is gone, or if its node does not answer in time."""
        began = time.monotonic()
        self.stopping = True
        self._starting.cancel()
        grace = 0.0 if first is StopStage.KILL else grace_seconds
        request = _StopRequest()
        if not self.reported.is_set() and self.joined.alive:
            self.joined.start_soon(self._ask_to_stop, grace, payload, request)
            bound = grace + timeouts.CANCEL_SECONDS + timeouts.TERM_SECONDS
            with trio.move_on_after(bound + timeouts.NODE_ANSWER_SECONDS):
                await request.answered.wait()
        if self._over.is_set() or not self.joined.alive:
            await self.reported.wait()
        if request.result is not None:
            return {**request.result, "slot": self.slot}
        if not self.reported.is_set():
            self._failure = f"its node {self.node} did not answer when it was to be stopped"
        return {
            **self._end(),
            "seconds": time.monotonic() - began,
            "graceful": False,
            "ended_by": StopStage.GONE.value,
            "payload": None,
        }

    async def _ask_to_stop(self, grace: float, payload: bytes, request: _StopRequest) -> None:
        try:
            answer = await self.joined.call("stop", [self.key], grace, payload)
            result = request.result = stop_result_of(only(answer))
            returned = result["payload"] is not None
            self._exit = self._exit or exit_of({**result, "expected": True, "returned": returned})
            self._over.set()
        except CreamasError as error:
            if type(error) is CreamasError:  # nothing is in that slot
                self._over.set()
            log.debug("%s is not stopped: %s", self, text_of(error))
        finally:
            request.answered.set()


class _StopRequest:
    """A request to stop an actor, and the node's answer."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.result: StopResult | None = None
