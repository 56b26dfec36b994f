"""Reports: of a step, of a slave that was restarted or stopped, of all slaves at the close."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from creamas_sc.errors import AgentError, agent_errors

__all__ = ["Restart", "SlaveReceipt", "StepReport", "StopReport"]


class _Carried:
    """Travels as the arguments of its constructor."""

    def _wire_state_(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def _from_wire_state_(cls, state: Mapping[str, Any]) -> Self:
        return cls(**state)


@dataclass(frozen=True)
class Restart(_Carried):
    """A slave that was lost and started again, and what of its contents was restored.

    Attributes:
        address: Of its manager, which stays the same.
        old_pid, pid: Its process before and after.
        cause: How the old one ended, in words.
        exit_code, signal: The same in numbers, None if unknown.
        number: Which restart this is of those that the policy counts now, from 1.
        incarnation: How often this slave was restarted, this time included.
        seconds: From the report of the old process's end until all was restored.
        agents, connections: How many were restored.
        host_manager, checkpoint: Whether it was restored.
        failures: What could not be restored, and why.
        changed_files: Files of the user's code that were changed since the simulation began: the
            slave has loaded the versions from before.
    """

    address: str
    old_pid: int
    pid: int
    cause: str
    exit_code: int | None
    signal: int | None
    number: int
    incarnation: int
    seconds: float
    agents: int = 0
    connections: int = 0
    host_manager: bool = False
    checkpoint: bool = False
    failures: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.agents} agents", f"{self.connections} connections"]
        parts += ["host manager"] * self.host_manager + ["checkpoint"] * self.checkpoint
        failed = "".join(f"; NOT restored: {failure}" for failure in self.failures)
        changed = "; it runs the code that the simulation began with, without the later changes of "
        code = changed + ", ".join(self.changed_files) if self.changed_files else ""
        return (
            f"{self.cause}; it was started again (pid {self.pid}), restart {self.number}, "
            f"with {', '.join(parts)}{code}{failed}"
        )


@dataclass(frozen=True)
class StepReport(_Carried):
    """Whether a step repeats itself.

    Attributes:
        repeatable: Whether another run with the same seed goes through the step in the same way,
            if it went so through those before it, as far as the library can see: agents that draw
            from the module ``random``, say, do not count here (see `creamas_sc.verify`). None if
            agents' calls are free: what they lead to may depend on timing.
        why: Why it is not repeatable, in words, with the addresses of agents or slaves.
    """

    repeatable: bool | None
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlaveReceipt(_Carried):
    """How one slave ended.

    Attributes:
        address: Of its manager.
        pid: Its process, which is gone and reaped.
        exit_code: None if a signal ended it, or if how it ended is unknown.
        signal: The signal that ended it, or None.
        seconds: From the request to the end.
        graceful: It ended by itself after the request; no signal was needed.
        ended_by: The last stage that was needed: "request", "cancel", "term" or "kill"; "gone" if
            it had ended before, "lost" if the supervisor had.
        errors: What its `save_info` or its agents' ``close`` raised, as text.
    """

    address: str
    pid: int
    exit_code: int | None
    signal: int | None
    seconds: float
    graceful: bool
    ended_by: str
    errors: tuple[str, ...] = ()


class StopReport(_Carried, list[SlaveReceipt]):
    """One `SlaveReceipt` for each slave, in the order of the slaves.

    Attributes:
        saved: What the multi-environment's own `save_info` returned.
        errors: What its closing raised, as text, if there was no caller to raise it to.
        seed: Of the simulation, given or drawn; None if the slaves are not of one.
        failures: Agents, and environments, of slaves that failed to save or close -> the error; it
            does not travel.
    """

    def __init__(
        self,
        slaves: Iterable[SlaveReceipt] = (),
        saved: object = None,
        errors: Iterable[str] = (),
        seed: int | None = None,
    ) -> None:
        super().__init__(slaves)
        self.seed = seed
        self.saved = saved
        self.errors = tuple(errors)
        self.failures: dict[str, AgentError] = {}

    def checked(self) -> Self:
        """Return the report; raise the `AgentErrors` about its `failures` if there are any."""
        if self.failures:
            raise agent_errors("failed to save or close", self.failures, [])
        return self

    @property
    def graceful(self) -> bool:
        """Whether no slave needed a signal."""
        return all(slave.graceful for slave in self)

    def _repr_html_(self) -> str:
        """For notebooks: a row for each slave."""
        from creamas_sc.runtime import html  # few need it

        head = ("address", "pid", "exit_code", "signal", "seconds", "ended_by", "errors")
        rows = [[getattr(slave, name) for name in head[:-1]] for slave in self]
        errors = ["; ".join(slave.errors) for slave in self]
        note = f"seed {self.seed}" + "".join(f"; {error}" for error in self.errors)
        return html.table(head, [(*row, e) for row, e in zip(rows, errors, strict=True)], note)

    def _wire_state_(self) -> dict[str, Any]:
        fields = {"saved": self.saved, "errors": self.errors, "seed": self.seed}
        return {"slaves": list(self), **fields}
