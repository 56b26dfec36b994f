"""A node's stay with a supervisor, from its joining to the end of one of them.

Each has a tree of its own: a `PrivateSupervisor` as scripts have it, so it ends when this process
does. Nothing in it knows of nodes, but for ``renew``, by which it ends when this process is
stopped. See `supervisor.nodes.joined_node` for the methods of both ends.

The lease is counted from when the last renewal was *sent* that was answered::

    sent ---- answered .... (silence) .... deadline: the tree is killed
     |<---------------- lease --------------->|

By then this process and the tree's supervisor have each heard the other, too, or the one that runs
ends the tree: this process kills its keeper, the supervisor itself (see `supervisor.root`). The
clock goes on while the machine sleeps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import trio
from anyio.abc import ByteStream

from creamas_sc.errors import ConnectionLost, CreamasError, StartError
from creamas_sc.runtime.nurseries import first_of, open_unwrapping_nursery
from creamas_sc.runtime.process_load import ENDED, ProcessLoad, load_of
from creamas_sc.runtime.stack_dumps import Answer, ask
from creamas_sc.supervisor_client import messages
from creamas_sc.supervisor_client.connection import PrivateSupervisor
from creamas_sc.wire.frames import FrameReader
from supervisor import timeouts
from supervisor.nodes.held_code import HeldCode
from supervisor.nodes.localized import localized
from supervisor.rpc_server import MethodServer

log = logging.getLogger(__name__)

# The supervisor has proved that it has the key: it is trusted with large specs and code.
MAX_FRAME_BYTES = 1 << 30


def now() -> float:
    """Seconds on a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Stay:
    """One stay.

    Args:
        stream: Connected to the supervisor; owned by it.
        about: What this node says of itself.

    Attributes:
        joined: Whether the supervisor has taken this node.
        left: Whether it ended in order: this node is not to join again.
        why: How it ended; empty before.
    """

    joined = False
    left = False
    why = ""

    def __init__(self, stream: ByteStream, about: messages.NodeAbout) -> None:
        self._about = about
        self._deadline = 0.0  # on the clock of `now`
        self._lease = trio.CancelScope()
        self._over = trio.Event()
        self._ready = trio.Event()
        self._asked = False  # by the supervisor
        self._code = HeldCode()
        self._pids: dict[str, int] = {}
        self._tree = PrivateSupervisor(self._report)
        self._server = MethodServer(
            stream,
            {
                "start": self._start,
                "stop": self._stop,
                "loads": self._loads,
                "stacks": self._stacks,
                "forget": self._forget,
                "end": self._end,
            },
            "the supervisor",
            FrameReader(MAX_FRAME_BYTES),
        )

    # ---- life

    async def run(self) -> None:
        """Join and carry out orders until it is over; then nothing of the tree is left.

        Raises:
            StartError: There can be no supervisor of slaves here.
            CreamasError: The supervisor refuses this node.
            ConnectionLost: The connection ended before this node had joined.
        """
        try:
            async with open_unwrapping_nursery() as nursery:
                nursery.start_soon(self._talk)
                await nursery.start(self._tree.run)
                try:
                    lease = await self._join()
                    nursery.start_soon(self._watch_lease, lease)
                    nursery.start_soon(self._keep_lease, lease)
                    await first_of(self._over, self._tree.gone)
                    self._finish("its processes were killed")
                finally:
                    with trio.CancelScope(shield=True):
                        await self._end_tree()
                        await self._server.connection.aclose()
                    nursery.cancel_scope.cancel()
        finally:
            self._code.close()

    async def _talk(self) -> None:
        await self._server.connection.run()
        self._finish("the connection to the supervisor ended")

    async def _join(self) -> float:
        """Join, and take orders from here on; returns the lease."""
        try:
            with trio.fail_after(timeouts.START_SECONDS):
                await self._tree.call("ping")  # it takes its time for its imports
        except (ConnectionLost, trio.TooSlowError) as error:
            raise StartError("the processes of this node do not start") from error
        try:
            with trio.fail_after(timeouts.JOIN_SECONDS):
                sent = now()
                answer = await self._server.call("join", self._about)
                lease = float(answer["lease"])
                self._extend(sent + lease)
                await self._tree.call("renew", self._deadline - now())
        except trio.TooSlowError:
            raise ConnectionLost("the supervisor does not answer", may_have_run=False) from None
        log.info("joined as node %s", answer["name"])
        self.joined = True
        self._ready.set()
        return lease

    def _extend(self, deadline: float) -> None:
        self._deadline = deadline
        self._lease.deadline = trio.current_time() + deadline - now()

    async def _watch_lease(self, lease: float) -> None:
        """Wait for its end: a call that is cancelled then would still wait for a moment."""
        with self._lease:
            await trio.sleep_forever()
        self._finish(f"its lease of {lease:g} s was not renewed")

    async def _keep_lease(self, lease: float) -> None:
        """Renew the lease, and the tree's, again and again."""
        pause = min(timeouts.RENEW_SECONDS, lease / 4)
        try:
            while True:
                await trio.sleep(pause)
                sent = now()
                if sent < self._deadline:
                    await self._server.call("renew")
                if now() >= self._deadline:  # the machine was asleep: it may run elsewhere by now
                    self._lease.cancel()
                    return
                self._extend(sent + lease)
                await self._tree.call("renew", self._deadline - now())
        except ConnectionLost:  # to either: its end is seen where it is run
            return
        except CreamasError as error:
            self._finish(f"its lease was not renewed: {error}")

    def _finish(self, why: str) -> None:
        if not self._over.is_set():
            self.why = why
            self._over.set()

    def leave(self, why: str) -> None:
        """End it in order: slaves have the usual time to end."""
        if not self._over.is_set():
            self.left = True
            self._finish(why)

    def kill(self) -> None:
        """End the tree at once, in the middle of its end say."""
        self._tree.kill()

    async def _end_tree(self) -> None:
        """End it, in order or at once, and tell the supervisor that nothing is left."""
        connection = self._server.connection
        if not self.left and self.joined:
            self._tree.kill()
        self._tree.end()  # the end of this connection is a request to end all
        await self._tree.gone.wait()
        with trio.move_on_after(timeouts.NODE_ANSWER_SECONDS):
            if self._asked:  # by then it has its answer
                await connection.closed.wait()
            elif self.joined:
                try:
                    await self._server.call("leave", self.why)
                except CreamasError as error:
                    log.debug("the supervisor was not told of the end: %s", error)

    # ---- what the supervisor asks

    async def _start(
        self,
        orders: Sequence[messages.ActorOrder],
        timeout: float | None = None,
        code: messages.Code | None = None,
    ) -> list[messages.StartedActor]:
        await self._ready.wait()
        if self._over.is_set():
            raise StartError(f"this node ends: {self.why}")
        if code is not None:
            self._code.take(code)
        if not orders:
            return []
        local = [localized(order) for order in orders]
        started: list[messages.StartedActor] = await self._tree.call("start", local, timeout)
        self._pids.update({each["slot"]: each["pid"] for each in started})
        return started

    async def _stop(
        self, slots: Sequence[str], grace: float | None = None, payload: bytes = b""
    ) -> list[messages.StopResult]:
        return await self._tree.call("stop", slots, grace, payload)  # type: ignore[no-any-return]

    async def _loads(self, slots: Sequence[str]) -> dict[str, ProcessLoad]:
        pids = {slot: self._pids.get(slot) for slot in slots}
        return {slot: ENDED if pid is None else load_of(pid) for slot, pid in pids.items()}

    async def _stacks(self, slots: Sequence[str], seconds: float) -> dict[str, Answer]:
        pids = {slot: self._pids[slot] for slot in slots if slot in self._pids}
        answers = await trio.to_thread.run_sync(ask, list(pids.values()), seconds)
        return dict(zip(pids, map(tuple, answers), strict=True))  # type: ignore[arg-type]

    async def _forget(self, simulation: str) -> None:
        self._code.forget(simulation)

    async def _end(self, why: object) -> None:
        """End in order; answered when nothing is left."""
        self._asked = True
        self.leave(f"the supervisor ended it: {why}")
        await self._tree.gone.wait()

    def _report(self, message: messages.ActorExit) -> None:
        if self._pids.get(message["slot"]) == message["pid"]:
            del self._pids[message["slot"]]
        self._server.post("exited", message)
