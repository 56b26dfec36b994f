"""What a multi-environment reports about its slaves, and the observer that it reports to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypedDict

from creamas_sc.errors import SlaveLost
from creamas_sc.reports import Restart, StepReport
from creamas_sc.restarts.slave import Slave
from creamas_sc.runtime.timeouts import GRACE_SECONDS

if TYPE_CHECKING:
    from creamas_sc.mp.slave_pool import SlavePool


class Observer:
    """Ignores everything; derive from it. Its methods must not block."""

    def slave_lost(self, slave: Slave) -> None:
        """A slave has ended without being asked to."""

    def slave_restarted(self, restart: Restart) -> None:
        """A slave is back."""

    def step_taken(self, step: StepReport) -> None:
        """A step has ended."""

    def kept(self, step: int) -> Any:
        """What a checkpoint after ``step`` is to keep of it: plain values."""

    def end_simulation(self, cause: SlaveLost) -> None:
        """The restart policy ends the simulation: close it."""

    def stop_grace_seconds(self) -> float:
        """How long slaves may take to save and close their agents, asked when they are stopped."""
        return GRACE_SECONDS


class Counts(TypedDict):
    """How much is in a multi-environment; ``restarts`` so far."""

    age: int
    agents: int
    slaves: int
    artifacts: int
    restarts: int


class Overview(NamedTuple):
    """What is in a multi-environment, as plain values, not from what a subclass overrides.

    Attributes:
        addrs: Addresses of the slaves' managers.
        slots, pids: Of the slaves, in the same order.
        policy: The restart policy, in words.
        seed: Of the simulation.
    """

    counts: Counts
    addrs: list[str]
    slots: list[str]
    pids: list[int]
    policy: str
    seed: int

    @classmethod
    def of(cls, age: int, artifacts: int, seed: int, slaves: SlavePool) -> Self:
        """What is in a multi-environment of that age and seed, with so many artifacts."""
        running = [slave for slave in slaves.members if not slave.gone.is_set()]
        counts: Counts = {
            "age": age,
            "agents": sum(slave.agents for slave in running),
            "slaves": len(running),
            "artifacts": artifacts,
            "restarts": len(slaves.restarts),
        }
        slots = [slave.slot for slave in slaves.members]
        pids = [slave.pid for slave in slaves.members]
        return cls(counts, slaves.addrs, slots, pids, str(slaves.policy), seed)
