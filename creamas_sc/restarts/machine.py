"""The restart policies as a state machine without I/O: what happens goes in, actions come out.

The caller (`creamas_sc.restarts.driver`) reports what happens to slaves, and carries out the action
that is returned. The vocabulary is that of OTP's supervisors::

    temporary    the others go on without a lost slave
    transient    it is restarted unless it exited normally
    permanent    it is restarted however it ended
    all          the simulation ends

A slave's state::

                     slave_up
         (new) ---> UP <------------------ COMING <---------+
                    |                         |             |
         slave_lost |            start_failed |             |
                    v                         v             |
                   the policy decides ------- restart ------+
                    |
                    +--- no restart, or the simulation ends ---> GONE

The first restart comes at once; each further one within the policy's ``seconds`` waits twice as
long as the one before, up to a limit. When more than ``restarts`` losses, of all slaves together,
fall within ``seconds``, the simulation ends. A start that fails counts like a loss, so a slave that
cannot come up uses the restarts up and ends the simulation instead of being tried for ever.

Once ended, by `EndSimulation` or `end`, the machine returns no action again and expects no slave,
so a restart that has not begun must be dropped; one that succeeds nevertheless is not wanted. An
exit that is reported twice, or of a slave that is not part of the simulation, changes nothing.
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
class StartSlave:
    """Restart the slave at a time; ``number``: which restart it is of those that count, from 1."""

    at: float
    number: int


@dataclass(frozen=True)
class EndSimulation:
    """End the simulation for the loss of the slave; ``cause`` says why in words."""

    cause: str


Action: TypeAlias = StartSlave | EndSimulation | None


class _State(Enum):
    UP = "up"
    COMING = "waiting for its restart, or being started"
    GONE = "gone"


class RestartMachine:
    """The machine of one simulation. Times are in seconds of any steady clock.

    Attributes:
        ended: No slave is started any more: the simulation is closing, or was ended.
    """

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.ended = False
        self._states: dict[str, _State] = {}
        self._recent: deque[float] = deque()  # times of the restarts that still count

    def expects(self, slot: str) -> bool:
        """Whether the slave is to be restarted, or is being restarted."""
        return self._states.get(slot) is _State.COMING and not self.ended

    def end(self) -> None:
        """The slaves are being stopped: start nothing from now on."""
        self.ended = True

    def slave_up(self, slot: str) -> bool:
        """A slave is up, for the first time or again; returns False if it has to be stopped."""
        wanted = not (self.ended and self._states.get(slot) is _State.COMING)
        self._states[slot] = _State.UP if wanted else _State.GONE
        return wanted

    def slave_lost(self, slot: str, why: str, now: float, normally: bool = False) -> Action:
        """A slave that was up is lost; ``normally``: it ended by itself, without failing."""
        return self._decide(_State.UP, slot, why, now, normally)

    def start_failed(self, slot: str, why: str, now: float) -> Action:
        """A slave that was to be restarted did not come up."""
        return self._decide(_State.COMING, slot, why, now)

    def _decide(
        self, state: _State, slot: str, why: str, now: float, normally: bool = False
    ) -> Action:
        """Apply the policy to the loss of a slave that was in ``state``."""
        if self._states.get(slot) is not state:
            return None  # reported before, or not a slave of this simulation
        self._states[slot] = _State.GONE
        mode = self.policy.mode
        if self.ended or mode == Mode.TEMPORARY or (mode == Mode.TRANSIENT and normally):
            return None
        if mode == Mode.ALL:
            self.end()
            return EndSimulation(f"{why}; with restart='all' that ends the simulation")
        while self._recent and now - self._recent[0] >= self.policy.seconds:
            self._recent.popleft()
        before = len(self._recent)
        if before >= self.policy.restarts:
            self.end()
            limit = f"after {self.policy.limit} restart={str(mode)!r} ends the simulation"
            return EndSimulation(f"{why}; {limit}")
        pause = 0.0
        if before:
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(before - 1, 32), LONGEST_PAUSE_SECONDS)
        self._recent.append(now)
        self._states[slot] = _State.COMING
        return StartSlave(now + pause, before + 1)
