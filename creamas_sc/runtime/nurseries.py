"""What comes out of trio's nurseries: groups of errors, of which cancellation may be a part."""

from __future__ import annotations

import logging
from types import TracebackType

import trio

from creamas_sc.errors import unwrapped

__all__ = ["cancellation_in", "open_unwrapping_nursery", "split_cancellation"]

log = logging.getLogger(__name__)


def split_cancellation(
    error: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    """Part ``error`` into trio's cancellation, which must go on, and the rest.

    A nursery of the user's groups what its tasks raise, `trio.Cancelled` included, and both kinds
    where a task failed as it was cancelled.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    if isinstance(error, trio.Cancelled):
        return error, None
    return None, error


def cancellation_in(error: BaseException) -> BaseException | None:
    """What of ``error`` is cancellation, for the caller to raise again.

    A failure beside it is logged: nobody else will hear of it.
    """
    cancelled, failure = split_cancellation(error)
    if cancelled is not None and failure is not None:
        log.error("a call failed as it was cancelled", exc_info=failure)
    return cancelled


class open_unwrapping_nursery:
    """A `trio.open_nursery` that raises a single error as it is, not in a group.

    For blocks whose caller is to see the error itself; several errors come as a group.
    """

    __slots__ = ("_manager",)

    def __init__(self) -> None:
        self._manager = trio.open_nursery(strict_exception_groups=True)

    async def __aenter__(self) -> trio.Nursery:
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._manager.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            (single,) = group.exceptions
        if single is error:
            return False
        if not isinstance(error, BaseExceptionGroup):  # a group that the block raised stays one
            single = unwrapped(single)
        context = single.__context__
        try:
            raise single
        finally:
            single.__context__ = context  # not the group, nor what the block raised
            del error, single, context  # else they and this frame would hold each other
