"""The restart policies as a state machine without I/O: events and the time go in, actions come out.

The caller (`creamas_sc.restarts.driver`) reports what happens to slaves, and carries out the
returned actions; their results come back as further events. The vocabulary is that of OTP's
supervisors::

    temporary    the others go on without a lost slave
    transient    it is restarted unless it exited normally
    permanent    it is restarted however it ended
    all          the simulation ends

A slave's state::

                   SlaveStarted             its pause is over
         (new) ---> UP <--- STARTING <------------------------ WAITING
                    |         |                                   ^
        SlaveExited |         | StartFailed, SlaveExited          |
                    v         v                                   |
                   the policy decides ------- restart ------------+
                    |
                    +--- no restart, or the simulation ends ---> GONE

The first restart comes at once; each further one within the policy's ``seconds`` waits twice as
long as the one before, up to a limit. When more than ``restarts`` losses, of all slaves together,
fall within ``seconds``, the simulation ends. A start that fails counts like a loss, so a slave that
cannot come up uses the restarts up and ends the simulation instead of being tried for ever.

Once ended, by `EndSimulation` or `Closing`, the machine returns no `StartSlave` again; a start that
was under way and succeeds nevertheless is answered with `StopSlave`. An exit that is reported
twice, or of a slave that is not part of the simulation, changes nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from creamas_sc.restarts.policy import Mode, RestartPolicy

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class SlaveStarted:
    """A slave is up, for the first time or again."""

    slot: str


@dataclass(frozen=True)
class StartFailed:
    """A restart did not succeed."""

    slot: str
    why: str


@dataclass(frozen=True)
class SlaveExited:
    """A slave has ended without being asked to; ``normally``: by itself, without failing."""

    slot: str
    normally: bool
    why: str


@dataclass(frozen=True)
class TimePassed:
    """The time that `RestartMachine.due_at` returned has come."""


@dataclass(frozen=True)
class Closing:
    """The slaves are being stopped: start nothing from now on."""


@dataclass(frozen=True)
class StartSlave:
    """Restart a slave; ``number``: which restart this is of those that count now, from 1."""

    slot: str
    number: int


@dataclass(frozen=True)
class StopSlave:
    """Stop a slave that came up although the simulation ends."""

    slot: str


@dataclass(frozen=True)
class EndSimulation:
    """End the simulation for the loss of that slave; ``cause`` says why in words."""

    slot: str
    cause: str


Event: TypeAlias = SlaveStarted | StartFailed | SlaveExited | TimePassed | Closing
Action: TypeAlias = StartSlave | StopSlave | EndSimulation


class _State(Enum):
    UP = "up"
    WAITING = "waiting for its restart"
    STARTING = "being started"
    GONE = "gone"


class RestartMachine:
    """The machine of one simulation.

    Attributes:
        ended: No slave is started any more: the simulation is closing, or was ended.
    """

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.ended = False
        self._states: dict[str, _State] = {}
        self._due: dict[str, tuple[float, int]] = {}  # when, and which restart it is
        self._recent: deque[float] = deque()  # times of the restarts that still count

    def expects(self, slot: str) -> bool:
        """Whether the slave is to be restarted, or is being restarted."""
        return self._states.get(slot) in (_State.WAITING, _State.STARTING) and not self.ended

    def due_at(self) -> float | None:
        """When to report `TimePassed` next; None if nothing waits for it."""
        return min((at for at, _ in self._due.values()), default=None)

    def receive(self, event: Event, now: float) -> list[Action]:
        """Process an event that happened at ``now`` (seconds of any steady clock)."""
        match event:
            case SlaveStarted(slot):
                late = self.ended and self._states.get(slot) is _State.STARTING
                self._states[slot] = _State.GONE if late else _State.UP
                return [StopSlave(slot)] if late else []
            case SlaveExited(slot, normally, why):
                return self._decide(slot, normally, why, now)
            case StartFailed(slot, why):
                return self._decide(slot, False, why, now)
            case TimePassed():
                return self._start_due(now)
            case Closing():
                self._end()
                return []

    def _decide(self, slot: str, normally: bool, why: str, now: float) -> list[Action]:
        """Apply the policy to the loss of a slave."""
        if self._states.get(slot) not in (_State.UP, _State.STARTING):
            return []  # reported before, or not a slave of this simulation
        self._states[slot] = _State.GONE
        mode = self.policy.mode
        if self.ended or mode == Mode.TEMPORARY or (mode == Mode.TRANSIENT and normally):
            return []
        if mode == Mode.ALL:
            self._end()
            return [EndSimulation(slot, f"{why}; with restart='all' that ends the simulation")]
        while self._recent and now - self._recent[0] >= self.policy.seconds:
            self._recent.popleft()
        before = len(self._recent)
        if before >= self.policy.restarts:
            self._end()
            limit = f"after {self.policy.limit} restart={str(mode)!r} ends the simulation"
            return [EndSimulation(slot, f"{why}; {limit}")]
        pause = 0.0
        if before:
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(before - 1, 32), LONGEST_PAUSE_SECONDS)
        self._recent.append(now)
        self._due[slot] = now + pause, before + 1
        self._states[slot] = _State.WAITING
        return self._start_due(now)

    def _start_due(self, now: float) -> list[Action]:
        due = [(slot, number) for slot, (at, number) in self._due.items() if at <= now]
        for slot, _ in due:
            del self._due[slot]
            self._states[slot] = _State.STARTING
        return [StartSlave(slot, number) for slot, number in due]

    def _end(self) -> None:
        self.ended = True
        for slot in self._due:
            self._states[slot] = _State.GONE
        self._due.clear()
