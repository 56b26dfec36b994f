"""Calls in rounds: what their callers wait for, and what is sent and served."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from creamas_sc.rpc.rounds.order import Order
from creamas_sc.rpc.socket_stream import TrioWaiter

if TYPE_CHECKING:
    from creamas_sc.rpc.rounds.activity import Activity

# A call as it is sent and served: the caller's number, and the call's own among those of the
# caller's environment, which together are its place in the order; that environment, None for this
# one; the called agent's number in its environment; method, arguments and keyword arguments.
Request: TypeAlias = tuple[Order, int, str | None, int, str, Sequence[Any], dict[str, Any]]


class Call:
    """A call that an activity makes, for its answer.

    Attributes:
        activity: Who calls; None once that does not wait any more.
        url: Where the called agent is, None for this environment.
        request: What is sent, or served here.
        waiter: Set with the answer where a task waits for it; None for a parked activity.
        value, error: The answer, once it is there; one of them is None.
    """

    __slots__ = ("activity", "error", "request", "url", "value", "waiter")

    value: Any
    error: BaseException | None

    def __init__(self, activity: Activity, url: str | None, request: Request) -> None:
        self.activity: Activity | None = activity
        self.url = url
        self.request = request
        self.waiter: TrioWaiter | None = None

    def __await__(self) -> Generator[Call, Any, Any]:
        """Wait for the answer, as the driver of an activity has it."""
        return (yield self)
