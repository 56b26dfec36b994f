"""What a simulation declares to follow from the loss of a slave; `restarts` carries it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from creamas_sc.errors import BadValue

__all__ = ["Mode", "RestartPolicy"]


class Mode(Enum):
    """What the loss of a slave leads to."""

    TEMPORARY = "temporary"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    ALL = "all"


_RESTARTING = (Mode.TRANSIENT, Mode.PERMANENT)


@dataclass(frozen=True)
class RestartPolicy:
    """A simulation's declared policy: at most ``restarts`` in any ``seconds``, then it ends.

    Attributes:
        mode: "temporary", "transient", "permanent" or "all".

    Raises:
        BadValue: ``mode`` is none of these, ``restarts`` no int of at least 0, or ``seconds`` no
            number above 0.
    """

    mode: str = "temporary"
    restarts: int = 3
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.mode not in [mode.value for mode in Mode]:
            raise BadValue(
                "restart must be 'temporary' (the others go on without a lost slave), 'transient' "
                "(it is started again unless it ended in order), 'permanent' (it is started again "
                f"however it ended) or 'all' (the simulation ends), not {self.mode!r}"
            )
        if type(self.restarts) is not int or self.restarts < 0:
            raise BadValue(f"restarts must be an int of at least 0, not {self.restarts!r}")
        if type(self.seconds) not in (int, float) or not 0 < self.seconds < math.inf:
            raise BadValue(f"seconds must be a number above 0, not {self.seconds!r}")

    @classmethod
    def of(cls, told: str | Self | Sequence[Any]) -> Self:
        """A policy of what users and the wire say: itself, a mode, or (mode, restarts, seconds).

        Raises:
            BadValue: It is none of these.
        """
        if isinstance(told, cls):
            return told
        if isinstance(told, str):
            return cls(told)
        if isinstance(told, Sequence) and len(told) == 3:
            return cls(*told)
        raise BadValue(f"restart must be a mode's name or a RestartPolicy, not {told!r}")

    @property
    def kind(self) -> Mode:
        """Its mode."""
        return Mode(self.mode)

    @property
    def restarts_slaves(self) -> bool:
        """Whether it ever starts a slave again."""
        return self.kind in _RESTARTING

    def told(self) -> tuple[str, int, float]:
        """For the wire."""
        return self.mode, self.restarts, float(self.seconds)

    def __str__(self) -> str:
        return f"{self.mode}{f', at most {self.limit}' if self.restarts_slaves else ''}"

    @property
    def limit(self) -> str:
        """How many restarts it allows, in words."""
        times = "1 restart" if self.restarts == 1 else f"{self.restarts} restarts"
        return f"{times} in {self.seconds:g} s"
