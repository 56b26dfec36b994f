"""The bounds of this process's calls between environments."""

from __future__ import annotations

from creamas_sc.runtime.timeouts import CONNECT_SECONDS


class BaseTimeout:
    """The bounds of this process's calls between environments; see `set_base_timeout`.

    Attributes:
        call: Seconds that a call may take, None for no limit.
        connect: Seconds that connecting may take.
    """

    call: float | None = None
    connect: float = CONNECT_SECONDS


def set_base_timeout(timeout: float | None) -> None:
    """Set how many seconds each call between environments may take, connecting included.

    Until it is set, connecting is bounded by 5 seconds and the calls themselves are not: a step may
    take hours. None restores that. The setting is this process's.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f"the base timeout must be above zero seconds, or None, not {timeout!r}")
    BaseTimeout.call = timeout
    BaseTimeout.connect = CONNECT_SECONDS if timeout is None else timeout
