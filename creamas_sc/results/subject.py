"""What a recording asks of what it records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from creamas_sc.reports import StepReport
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.wire.codec import Codec


class Subject(Protocol):
    """What is recorded: an environment or a multi-environment."""

    @property
    def codec(self) -> Codec:
        """Encodes the objects of artifacts."""

    @property
    def address(self) -> str:
        """Stands for the user's code in errors."""

    @property
    def environment(self) -> Any:
        """What ``metrics`` gets; it has an ``age``. None if it is gone."""

    def setup(self) -> dict[str, Any]:
        """How it is set up, "class" and "seed" among it, and "parameters"."""

    def sources(self) -> list[bytes] | None:
        """The user's code; None for what this process has loaded."""

    def last_step(self) -> StepReport | None:
        """Whether the step that was taken is repeatable, if that is known."""

    def numbers(self, url: str) -> Sequence[Order]:
        """The numbers of the agents, without the manager, of an environment."""

    def number_of(self, address: str) -> Order | None:
        """The number of the agent at an address, if it is one."""

    @property
    def write_checkpoint(self) -> Callable[..., Awaitable[None]] | None:
        """Writes a checkpoint; see `creamas_sc.mp.checkpointing`. None if there can be none."""
