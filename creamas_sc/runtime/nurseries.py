"""Exception groups from trio's nurseries, which may contain trio's cancellation."""

from __future__ import annotations

import logging
from types import TracebackType

import trio

from creamas_sc.errors import unwrapped

log = logging.getLogger(__name__)


def split_cancellation(
    error: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    """Split ``error`` into trio's cancellation, which must be raised again, and the rest.

    A nursery in user code groups what its tasks raise, `trio.Cancelled` included, and both kinds if
    a task failed while it was being cancelled.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    if isinstance(error, trio.Cancelled):
        return error, None
    return None, error


def cancellation_in(error: BaseException) -> BaseException | None:
    """Return the part of ``error`` that is cancellation, for the caller to raise again.

    A failure beside it is logged, since it is raised nowhere.
    """
    cancelled, failure = split_cancellation(error)
    if cancelled is not None and failure is not None:
        log.error("a call failed while it was being cancelled", exc_info=failure)
    return cancelled


def reraise_cancellation(error: BaseException) -> None:
    """Raise the part of ``error`` that is cancellation, if there is any; see `cancellation_in`."""
    cancelled = cancellation_in(error)
    if cancelled is not None:
        raise cancelled from None


class open_unwrapping_nursery:
    """A `trio.open_nursery` that raises a single error as it is, not in a group.

    Several errors are raised as a group, and a group that the block itself raised stays one.
    """

    __slots__ = ("_manager",)

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery(strict_exception_groups=True)
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
        if not isinstance(error, BaseExceptionGroup):
            single = unwrapped(single)
        context = single.__context__
        try:
            raise single
        finally:
            single.__context__ = context  # not the group, nor what the block raised
            del error, single, context  # else they and this frame would hold each other


async def first_of(*events: trio.Event) -> None:
    """Wait until one of ``events`` is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
