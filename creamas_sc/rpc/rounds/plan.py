"""How a step goes in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from creamas_sc.errors import BadValue
from creamas_sc.foreign import shown

# A multi-environment counts its steps in these: an environment may take one more than once.
TAKES_PER_STEP = 1 << 20


class Plan(NamedTuple):
    """How a step goes in rounds.

    Attributes:
        step: Its number; those of later steps are higher.
        peers: The base URLs of the environments that take part, this one's included.
    """

    step: int = 0
    peers: Sequence[str] = ()


# Of the step that the running task takes, if its calls go in rounds.
step_plan: ContextVar[Plan | None] = ContextVar("step_plan", default=None)


def check_calls(calls: Any) -> bool:
    """Return whether calls go in rounds; raise a BadValue unless it is "rounds" or "free"."""
    if calls not in ("rounds", "free"):
        raise BadValue(f'calls must be "rounds" or "free", not {shown(calls)}')
    return bool(calls == "rounds")
