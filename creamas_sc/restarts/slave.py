"""One slave as its multi-environment sees it: running, gone, or running again."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import trio

from creamas_sc.errors import AgentError, SlaveLost, from_wire
from creamas_sc.reports import SlaveReceipt
from creamas_sc.restarts.journal import SlaveJournal
from creamas_sc.rpc.addresses import hold, split_address
from creamas_sc.runtime.process_load import ENDED, UNKNOWN, ProcessLoad, load_of
from creamas_sc.supervisor_client.messages import ActorOrder, ExitStatus, StopResult, describe_exit
from creamas_sc.supervisor_client.spec import unpack

# A lost connection is noticed before the supervisor reports why the process ended: the report is
# waited for this long.
EXIT_REPORT_SECONDS = 0.5
# The same of a slave on a node: its processes may end so long before the node is given up.
NODE_REPORT_SECONDS = 3.0

UNKNOWN_EXIT: ExitStatus = {"exit_code": None, "signal": None, "error": None}


@dataclass(eq=False)  # compared by identity
class Slave:
    """One slave.

    Attributes:
        slot: The supervisor's name for it.
        base_url: Of its environment.
        order: What the supervisor was asked to start.
        journal: What it was given, to be given again after a restart; None if nothing is kept.
        agents: How many agents were spawned into it.
        gone: Set when its process has ended; ``exit`` then says how.
        reported: A caller got its loss as an error; from then on the others go on without it.
        ended_as: Why it is being ended as lost, although its process runs: "it did not answer ...".
        incarnation: How often it was restarted; ``before`` is what it was before the last restart.
        stoppable: The supervisor can stop it and report its end: False once that was done, and
            while a restart is under way.
        held: Keeps its port while it may be restarted, if peers connect over that.
        step_began: When the step began that it has not answered yet, on trio's clock.
        step_seconds: How long it took to answer in the last step; None before one.
    """

    slot: str
    base_url: str
    pid: int
    order: ActorOrder
    journal: SlaveJournal | None = None
    agents: int = 0
    gone: trio.Event = field(default_factory=trio.Event)
    exit: ExitStatus = field(default_factory=lambda: UNKNOWN_EXIT)
    reported: bool = False
    ended_as: str = ""
    incarnation: int = 0
    before: Slave | None = None
    stoppable: bool = True
    held: socket.socket | None = None
    step_began: float | None = None
    step_seconds: float | None = None

    @property
    def node(self) -> str:
        """The node on which it runs, or ran; empty for this machine."""
        return self.order.get("node", "")

    @property
    def process(self) -> str:
        """Its process, in words."""
        return f"pid {self.pid} on the node {self.node}" if self.node else f"pid {self.pid}"

    @property
    def address(self) -> str:
        """Address of its manager."""
        return f"{self.base_url}0"

    async def hold_port(self) -> None:
        """Keep its port from other users until `free_port`, if it is one of this machine.

        Raises:
            StartError: It has ended, and somebody else has the port.
        """
        if not self.node:
            host, port, _ = split_address(self.address)
            self.held = await hold(host, port)

    def free_port(self) -> None:
        """Let its port go: it will not be restarted."""
        if self.held is not None:
            self.held.close()
        self.held = None

    def mark_restarted(self, pid: int, order: ActorOrder) -> None:
        """Note that it runs again, in the process ``pid``, as ``order`` says."""
        self.before = copy(self)
        self.before.before = None
        self.order = order
        self.pid, self.incarnation = pid, self.incarnation + 1
        self.gone, self.exit = trio.Event(), UNKNOWN_EXIT
        self.reported, self.ended_as, self.stoppable = False, "", True

    def begin_step(self) -> None:
        """Note that it has been called for a step."""
        self.step_began = trio.current_time()

    def end_step(self) -> None:
        """Note that it has answered in the step, or is not waited for any more."""
        if self.step_began is not None:
            self.step_seconds = trio.current_time() - self.step_began
            self.step_began = None

    def load(
        self, coming: bool = False, away: Mapping[str, ProcessLoad] | None = None
    ) -> dict[str, Any]:
        """What it takes of its machine, and how long it takes in steps, as plain values.

        Args:
            coming: Whether it is being started again, or will be.
            away: What slaves on nodes take, by slot, as far as that is known.
        """
        began = self.step_began
        load = (away or {}).get(self.slot, UNKNOWN) if self.node else load_of(self.pid)
        if self.gone.is_set():
            load = {**ENDED, "state": "restarting" if coming else "lost"}
        return {
            "address": self.address,
            "pid": self.pid,
            "node": self.node,
            "agents": self.agents,
            "restarts": self.incarnation,
            **load,
            "step_seconds": self.step_seconds,
            "waited_seconds": None if began is None else trio.current_time() - began,
        }

    @property
    def exited_normally(self) -> bool:
        """Whether it ended by itself, without failing."""
        return self.exit["exit_code"] == 0 and not self.exit["error"] and not self.ended_as

    def describe_end(self) -> str:
        """How it ended, in words."""
        how = describe_exit(self.exit["exit_code"], self.exit["signal"])
        why = f": {self.exit['error']}" if self.exit["error"] else ""
        if self.ended_as:
            why = f", as {self.ended_as}"
        return f"the slave {self.base_url} ({self.process}) {how}{why}"

    def loss_details(self) -> dict[str, Any]:
        """How it ended, for an event."""
        return {
            "address": self.address,
            "pid": self.pid,
            "node": self.node,
            "exit_code": self.exit["exit_code"],
            "signal": self.exit["signal"],
            "cause": self.describe_end(),
        }

    def loss(self, cause: str = "") -> SlaveLost:
        """Make the error for a caller, who counts as informed from now on.

        Args:
            cause: The error's text; how the slave ended by default.
        """
        self.reported = True
        if not cause:
            cause = self.describe_end()
            if self.exit["signal"] == signal.SIGKILL and not self.ended_as:
                cause += " (by the kernel, if nobody else: has the machine run out of memory?)"
        return SlaveLost(
            cause,
            address=self.address,
            pid=self.pid,
            exit_code=self.exit["exit_code"],
            signal=self.exit["signal"],
            node=self.node,
        )

    async def wait_for_exit_report(self) -> bool:
        """Wait for the report of an exit that a lost connection suggests; whether it came."""
        with trio.move_on_after(NODE_REPORT_SECONDS if self.node else EXIT_REPORT_SECONDS):
            await self.gone.wait()
        return self.gone.is_set()

    async def sleep(self, seconds: float) -> None:
        """Sleep; raise `SlaveLost` as soon as the slave dies."""
        with trio.move_on_after(seconds):
            await self.gone.wait()
            raise self.loss()

    def stop_report(self, result: StopResult | None) -> SlaveReceipt:
        """Report how its stop went; ``result`` is what the supervisor says, if it can."""
        exit_ = result or self.exit
        errors = [f"{error}\n{error.traceback_text}" for error in _failures_in(result)]
        if result is not None:
            ended_by = result["ended_by"]
        elif not self.stoppable:
            ended_by = "gone"
        else:
            ended_by = "lost" if self.gone.is_set() else "unknown"
        known = exit_["exit_code"] is not None or exit_["signal"] is not None
        # That its node was lost before is no failure of this stop.
        if exit_["error"] and (known or not self.gone.is_set()):
            errors.append(exit_["error"])
        return SlaveReceipt(
            address=self.address,
            pid=self.pid,
            exit_code=exit_["exit_code"],
            signal=exit_["signal"],
            seconds=0.0 if result is None else result["seconds"],
            graceful=result is not None and result["graceful"],
            ended_by=ended_by,
            errors=tuple(errors),
        )

    def close_failures(self, result: StopResult | None, saving: bool) -> list[AgentError]:
        """What its stop failed to save or close; ``saving`` if it had a folder to save into."""
        if result is None or result["ended_by"] == "gone":
            return []
        failures = _failures_in(result)
        if result["ended_by"] == "request":
            if not result["graceful"]:
                how = describe_exit(result["exit_code"], result["signal"])
                text = result["error"] or f"while it was closing, its process {how}"
                failures.append(_failure(self.base_url, "CreamasError", text))
        elif saving:
            what = f"it had not saved all after {result['seconds']:.1f} s and was ended"
            text = f"{what}: save what takes longer before the close, with gather()"
            failures.append(_failure(self.base_url, "TimeoutError", text))
        return failures


def _failures_in(result: StopResult | None) -> list[AgentError]:
    """What the slave itself says that it failed to save or close."""
    if result is None or result["payload"] is None:
        return []
    errors = map(from_wire, unpack(result["payload"]))
    return [error for error in errors if isinstance(error, AgentError)]


def _failure(address: str, type_name: str, message: str) -> AgentError:
    return AgentError(address=address, type_name=type_name, message=message)
