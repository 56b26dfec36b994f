"""What simulations do with recordings: where nothing is recorded, no database is imported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import BadValue, RecordError
from creamas_sc.results.record import Record
from creamas_sc.runtime.class_loading import load_object

if TYPE_CHECKING:
    from creamas_sc.results.observing import Asked
    from creamas_sc.results.recording import Recording
    from creamas_sc.results.subject import Subject


def make(record: Any, subject: Subject, current: Recording | None) -> Recording:
    """Make the recording of a simulation.

    Args:
        record: A folder or a `Record`.
        current: The one that the simulation has already.

    Raises:
        BadValue: ``record`` is something else, or there is one already.
        LoadError: Its metrics are a name, and there is nothing of that name.
    """
    checked = Record.of(record)
    if isinstance(checked.metrics, str):
        checked = replace(checked, metrics=load_object(checked.metrics))
    if current is not None:
        raise BadValue("this simulation is recorded already: give record= once")
    from creamas_sc.results.recording import Recording

    if checked.has_checkpoints and subject.write_checkpoint is None:
        raise BadValue("checkpoints are for a MultiEnvironment: leave checkpoint_every out")
    return Recording(checked, subject)


async def take(
    recording: Recording | None, act: Callable[[Asked | None], Awaitable[list[Any]]]
) -> list[Any]:
    """Take a step, of which a record is made if there is a recording; see `Recording.take`."""
    return await act(None) if recording is None else await recording.take(act)


async def close(recording: Recording) -> RecordError | None:
    """Close a recording; returns the error if something could not be written."""
    try:
        await recording.aclose()
    except RecordError as error:
        return error
    return None
