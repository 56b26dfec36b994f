"""What the loss of a slave leads to: the restart policies, as a state machine without I/O.

An event and the time go in, actions come out; whoever carries them out tells of it by further
events. The vocabulary is that of OTP's supervisors::

    temporary    the others go on without it
    transient    started again unless it ended in order
    permanent    started again however it ended
    all          the simulation ends

More than ``restarts`` of all slaves together within ``seconds`` end the simulation; a start that
fails counts like a loss. The first restart is at once, each further one within that time waits
twice as long as the one before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from creamas_sc.restarts.policy import Mode, RestartPolicy

__all__ = [
    "Action",
    "Closing",
    "EndSimulation",
    "Event",
    "Restarts",
    "SlaveExited",
    "SlaveStarted",
    "StartFailed",
    "StartSlave",
    "StopSlave",
    "TimePassed",
]

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class SlaveStarted:
    """A slave is up, for the first time or again."""

    slot: str


@dataclass(frozen=True)
class StartFailed:
    """A slave that was to be started again did not come up."""

    slot: str
    why: str


@dataclass(frozen=True)
class SlaveExited:
    """A slave that nobody had asked to stop has ended; ``in_order``: by itself, without failing."""

    slot: str
    in_order: bool
    why: str


@dataclass(frozen=True)
class TimePassed:
    """The moment that `Restarts.due_at` named has come."""


@dataclass(frozen=True)
class Closing:
    """The slaves are being stopped: nothing is started any more."""


@dataclass(frozen=True)
class StartSlave:
    """Start a slave again; ``number``: which restart this is of those that count now, from 1."""

    slot: str
    number: int


@dataclass(frozen=True)
class StopSlave:
    """End a slave that came up although the simulation ends."""

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


class Restarts:
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
        """Whether a slave is to come up there."""
        return self._states.get(slot) in (_State.WAITING, _State.STARTING) and not self.ended

    def due_at(self) -> float | None:
        """When `TimePassed` is wanted next; None for not at all."""
        return min((at for at, _ in self._due.values()), default=None)

    def receive(self, event: Event, now: float) -> list[Action]:
        """Take an event that happened at ``now`` (seconds of any steady clock)."""
        match event:
            case SlaveStarted(slot):
                return self._take_up(slot)
            case SlaveExited(slot, in_order, why):
                return self._lose(slot, in_order, why, now)
            case StartFailed(slot, why):
                return self._lose(slot, False, why, now)
            case TimePassed():
                return self._start_due(now)
            case Closing():
                self._end()
                return []

    def _take_up(self, slot: str) -> list[Action]:
        if self.ended and self._states.get(slot) is _State.STARTING:
            self._states[slot] = _State.GONE
            return [StopSlave(slot)]
        self._states[slot] = _State.UP
        return []

    def _lose(self, slot: str, in_order: bool, why: str, now: float) -> list[Action]:
        if self._states.get(slot) not in (_State.UP, _State.STARTING):
            return []  # told before, or never of this simulation's
        self._states[slot] = _State.GONE
        mode = self.policy.kind
        if self.ended or mode is Mode.TEMPORARY or (mode is Mode.TRANSIENT and in_order):
            return []
        if mode is Mode.ALL:
            return self._give_up(slot, f"{why}; with restart='all' that ends the simulation")
        while self._recent and now - self._recent[0] >= self.policy.seconds:
            self._recent.popleft()
        if len(self._recent) >= self.policy.restarts:
            limit = f"after {self.policy.limit} restart={mode.value!r} ends the simulation"
            return self._give_up(slot, f"{why}; {limit}")
        at = now + self._pause()
        self._recent.append(now)
        self._due[slot] = at, len(self._recent)
        self._states[slot] = _State.WAITING
        return self._start_due(now)

    def _pause(self) -> float:
        before = len(self._recent)
        if before == 0:
            return 0.0
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(before - 1, 32), LONGEST_PAUSE_SECONDS)

    def _start_due(self, now: float) -> list[Action]:
        due = [(slot, number) for slot, (at, number) in self._due.items() if at <= now]
        for slot, _ in due:
            del self._due[slot]
            self._states[slot] = _State.STARTING
        return [StartSlave(slot, number) for slot, number in due]

    def _give_up(self, slot: str, cause: str) -> list[Action]:
        self._end()
        return [EndSimulation(slot, cause)]

    def _end(self) -> None:
        self.ended = True
        for slot in self._due:
            self._states[slot] = _State.GONE
        self._due.clear()
