"""The base timeout of calls that this package makes on a user's behalf."""

from __future__ import annotations

__all__ = ["base_timeout", "call_timeout", "set_base_timeout"]

CONNECT_SECONDS = 5.0

_timeout: float | None = None


def set_base_timeout(timeout: float | None) -> None:
    """Set how many seconds each call between environments may take, connecting included.

    Until it is set, connecting is bounded by 5 seconds and the calls themselves are not: a step may
    take hours. None goes back to that. It counts in this process only.
    """
    global _timeout
    if timeout is not None and not timeout > 0:
        raise ValueError(f"the base timeout must be above zero seconds, or None, not {timeout!r}")
    _timeout = timeout


def base_timeout() -> float:
    """Seconds that connecting may take."""
    return CONNECT_SECONDS if _timeout is None else _timeout


def call_timeout() -> float | None:
    """Seconds that a call may take, None for no limit."""
    return _timeout
