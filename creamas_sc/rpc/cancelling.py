"""Cancelling a call: how long the callee has to confirm, and whether it did, further on too."""

from __future__ import annotations

from contextvars import ContextVar

from creamas_sc.errors import DeadlineExceeded, DecodeError, from_wire
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, Kind

__all__ = ["ACKNOWLEDGE_SECONDS", "ServedCall", "confirms", "served_call"]

# How long a cancelled call waits for the callee to confirm, in seconds.
ACKNOWLEDGE_SECONDS = 0.4


class ServedCall:
    """A call of a peer's, for those that work for it.

    Attributes:
        unconfirmed: Who, asked to cancel its part of the work, did not confirm that in time.
    """

    __slots__ = ("unconfirmed",)

    def __init__(self) -> None:
        self.unconfirmed: list[str] = []


# The call that the running task serves, if any.
served_call: ContextVar[ServedCall | None] = ContextVar("served_call", default=None)


def confirms(frame: Frame | None, codec: Codec) -> bool:
    """Whether a callee's answer says that nothing of a cancelled call runs any more."""
    if frame is None or frame.kind is Kind.REPLY:
        return frame is not None
    try:
        error = from_wire(codec.decode(Payload(frame.body, frame.parts)))
    except DecodeError:
        return False
    return not isinstance(error, DeadlineExceeded) or error.acknowledged
