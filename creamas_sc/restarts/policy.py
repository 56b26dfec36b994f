"""What happens after the loss of a slave: the policy that a simulation declares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from creamas_sc.errors import BadValue
from creamas_sc.runtime.validation import check_count


class Mode(StrEnum):
    """What the loss of a slave leads to."""

    TEMPORARY = "temporary"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    ALL = "all"


@dataclass(frozen=True)
class RestartPolicy:
    """What follows from the loss of a slave: ``MultiEnvironment(..., restart=...)``.

    A mode's name alone means the default limits. ``RestartPolicy("permanent", 5, 30)`` allows 5
    restarts in 30 seconds; one more, and the simulation ends.

    A restarted slave has its old address, and gets again what it had got through the
    `MultiEnvironment`: its host manager, the agents that were spawned there (constructed again,
    with new random numbers) and the connections that were created. Where the run has checkpoints on
    disk (`creamas_sc.results.Record`), the agents are those of the last one. Where the class of the
    slave's environment has the methods ``checkpoint()`` and ``restore(state)``, the first is called
    after each ``trigger_all``, and the second in the restarted slave, with what the first returned
    last.

    The call during which the slave was lost raises `SlaveLost`; calls that begin while it is being
    restarted wait; after the loss of a node that takes up to 11 seconds longer, for which its
    machine may still run it. As a restart changes a run's results, each one is logged and kept in
    ``menv.restarts``, as a `Restart` that says what was restored and what could not be. Clients of
    a daemon's simulation get the event "slave_restarted"; of the steps that the simulation takes by
    itself, the loss ends the current one early, and the next goes on.

    Attributes:
        mode: "temporary": the others go on without the slave. "transient": it is started again
            unless it ended normally. "permanent": it is started again however it ended. "all": the
            simulation ends.
        restarts: How many restarts are allowed in any ``seconds``.
        seconds: The length of that period.

    Raises:
        BadValue: ``mode`` is none of these, ``restarts`` is not an int of at least 0, or
            ``seconds`` is not a number above 0.
    """

    mode: str = "temporary"
    restarts: int = 3
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.mode not in list(Mode):
            raise BadValue(
                "restart must be 'temporary' (the others go on without a lost slave), 'transient' "
                "(it is started again unless it ended normally), 'permanent' (it is started again "
                f"however it ended) or 'all' (the simulation ends), not {self.mode!r}"
            )
        check_count("restarts", self.restarts, 0)
        if type(self.seconds) not in (int, float) or not 0 < self.seconds < math.inf:
            raise BadValue(f"seconds must be a number above 0, not {self.seconds!r}")

    @classmethod
    def of(cls, value: str | Self | Sequence[Any]) -> Self:
        """Make a policy of a mode's name, a policy, or the values of its attributes in order.

        Raises:
            BadValue: It is none of these.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Sequence) and len(value) == 3:
            return cls(*value)
        raise BadValue(f"restart must be a mode's name or a RestartPolicy, not {value!r}")

    @property
    def restarts_slaves(self) -> bool:
        """Whether it ever restarts a slave."""
        return self.mode in (Mode.TRANSIENT, Mode.PERMANENT)

    def __str__(self) -> str:
        return f"{self.mode}{f', at most {self.limit}' if self.restarts_slaves else ''}"

    @property
    def limit(self) -> str:
        """How many restarts it allows, in words."""
        times = "1 restart" if self.restarts == 1 else f"{self.restarts} restarts"
        return f"{times} in {self.seconds:g} s"
