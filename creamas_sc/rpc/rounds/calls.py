"""Calls in rounds, at the end that makes them and at the end that serves them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from creamas_sc.rpc.rounds.order import Order
from creamas_sc.rpc.socket_stream import TrioWaiter

if TYPE_CHECKING:
    from creamas_sc.rpc.rounds.activity import Activity


class Call:
    """A call that an activity makes; within an environment it is also what is served.

    Attributes:
        url, target: Where the called agent is, None for this environment, and its number there.
        activity, order: Who calls.
        number: Its own among this environment's calls.
        waiter: Set with the answer where a task waits for it; None for a parked activity.
        answered: Whether the answer is there: ``value``, or ``error``.
        given_up: Whether its caller does not wait any more.
        agent: The called agent, once it is served.
    """

    __slots__ = ("activity", "agent", "answered", "args", "error", "given_up", "kwargs", "method",
                 "number", "order", "target", "url", "value", "waiter")  # fmt: skip

    activity: Activity
    agent: Any
    number: int
    order: Order
    value: Any

    def __init__(
        self,
        place: tuple[str | None, int],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.url, self.target = place
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.answered = self.given_up = False
        self.waiter: TrioWaiter | None = None
        self.error: BaseException | None = None

    def __await__(self) -> Generator[Call, None, None]:
        """Wait for the answer, as the driver of an activity has it."""
        yield self


class PeerCall:
    """A call of another environment's agent.

    Attributes:
        order, number: As of `Call`.
        url: The caller's environment.
        target: The called agent's number in this environment.
    """

    __slots__ = ("agent", "args", "kwargs", "method", "number", "order", "target", "url")

    answered = False

    def __init__(
        self,
        order: Order,
        number: int,
        url: str,
        target: int,
        method: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> None:
        self.order = order
        self.number = number
        self.url = url
        self.target = target
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.agent: Any = None
