"""The tractor side of an actor's process: one context, through which everything goes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import trio

from supervisor.actors import entry_runner
from supervisor.actors.tractor_adapter import patches
from supervisor.actors.tractor_adapter.compat import tractor
from supervisor.tree import child_setup


def run_actor(name: str, uid: str, fd: int, inherited: Sequence[int] = ()) -> int:
    """Run a tractor actor that talks to its parent over ``fd``, until it is cancelled.

    Args:
        inherited: Descriptors for its entry.

    Returns:
        The exit code of one that was cancelled; where its entry has ended, `live` ends it.
    """
    path = list(sys.path)
    patches.use_forker(None)
    child = tractor._actor.Actor(name, uid=uid, spawn_method="trio")
    entry_runner.remember_path(path)
    entry_runner.remember_descriptors(inherited)
    tractor._entry._trio_main(child, parent_addr=("fd", fd))
    return 0


@tractor.context  # type: ignore[untyped-decorator]
async def live(ctx: Any, order: dict[str, Any]) -> None:
    """The one context of an actor: runs the entry, tells how that ended, and ends the process.

    Up the stream go messages of the entry, down it the request to stop. Nothing is raised here
    but cancellation: an error that left this function would end the actor's siblings too.
    """
    await ctx.started(None)
    async with ctx.open_stream() as stream:
        outcome = await entry_runner.live(order, _Link(stream))
        try:
            await stream.send(["ended", outcome])
        finally:
            # To be cancelled by tractor would be one more round trip, and take longer than the
            # entry's own end; there is nothing left to unwind but tractor itself.
            child_setup.leave(0 if "done" in outcome else 1)


class _Link:
    """The stream, as `supervisor.actors.entry_runner` sees it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send(self, message: list[Any]) -> None:
        await self._stream.send(message)

    async def receive(self) -> list[Any] | None:
        try:
            message: list[Any] = await self._stream.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None
        return message
