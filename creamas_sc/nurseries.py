"""What comes out of trio's nurseries: groups of errors, of which cancellation may be a part."""

from __future__ import annotations

from types import TracebackType

import trio

__all__ = ["is_cancellation", "open_unwrapping_nursery", "split_cancellation"]


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


def is_cancellation(error: BaseException) -> bool:
    """Whether ``error`` is trio's cancellation and nothing else."""
    return split_cancellation(error)[1] is None


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
        context = single.__context__
        try:
            raise single
        finally:
            single.__context__ = context  # not the group, nor what the block raised
            del error, single, context  # else they and this frame would hold each other
