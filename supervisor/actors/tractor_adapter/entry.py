"""The tractor side of an actor's process: one context, over which everything goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from creamas_sc.supervisor_client.messages import ProcessOrder
from supervisor.actors import entry_runner
from supervisor.actors.tractor_adapter.compat import tractor
from supervisor.tree import child_setup

# For the entry of this process; tractor hands nothing on to `serve`.
_inherited: Sequence[int] = ()


def run_actor(name: str, uid: str, fd: int, inherited: Sequence[int] = ()) -> int:
    """Run a tractor actor that talks to its parent over ``fd``, until it is cancelled.

    Args:
        inherited: Descriptors for its entry.

    Returns:
        The exit code of an actor that was cancelled; if its entry ends, `serve` exits first.
    """
    global _inherited
    _inherited = inherited
    child = tractor._actor.Actor(name, uid=uid, spawn_method="trio")
    tractor._entry._trio_main(child, parent_addr=("fd", fd))
    return 0


@tractor.context  # type: ignore[untyped-decorator]
async def serve(ctx: Any, order: ProcessOrder) -> None:
    """The one context of an actor: run the entry, report how it ended, and end the process.

    Messages of the entry go up the stream, and the request to stop comes down. Only cancellation
    is raised here: an error that left this function would end the actor's siblings too.
    """
    await ctx.started(None)
    async with ctx.open_stream() as stream:
        outcome = await entry_runner.run_entry(order, stream, _inherited)
        try:
            await stream.send(["ended", outcome])
        finally:
            # To be cancelled by tractor would be one more round trip, and take longer than the
            # entry's own end; only tractor itself is left to unwind.
            child_setup.exit_now(1 if outcome.payload is None else 0)
