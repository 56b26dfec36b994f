"""What became of a multi-environment when it was closed, and of each slave when it was stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Receipt", "SlaveReceipt"]


@dataclass(frozen=True)
class SlaveReceipt:
    """How one slave ended.

    Attributes:
        address: Of its manager.
        pid: Its process, which is gone and reaped.
        exit_code: None if a signal ended it, or if it is unknown.
        signal: The signal that ended it, or None.
        seconds: From the request to the end.
        graceful: It ended by itself upon the request: no signal was needed.
        ended_by: The last step that was needed: "request", "cancel", "term" or "kill"; "gone" if it
            had ended before, "lost" if the supervisor had.
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

    def _wire_state_(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def _from_wire_state_(cls, state: Mapping[str, Any]) -> Self:
        return cls(**state)


class Receipt(list[SlaveReceipt]):
    """One `SlaveReceipt` for each slave, in the order of the slaves.

    Attributes:
        saved: What the multi-environment's own `save_info` returned.
        errors: What its closing raised, as text, where nobody was there to get the error itself.
    """

    def __init__(
        self,
        slaves: Iterable[SlaveReceipt] = (),
        saved: object = None,
        errors: Iterable[str] = (),
    ) -> None:
        super().__init__(slaves)
        self.saved = saved
        self.errors = tuple(errors)

    @property
    def graceful(self) -> bool:
        """Whether no slave needed a signal."""
        return all(slave.graceful for slave in self)

    def _wire_state_(self) -> dict[str, Any]:
        return {"slaves": list(self), "saved": self.saved, "errors": self.errors}

    @classmethod
    def _from_wire_state_(cls, state: Mapping[str, Any]) -> Self:
        return cls(**state)
