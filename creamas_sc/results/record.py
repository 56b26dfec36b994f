"""What of a simulation is to be recorded, and where."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from creamas_sc.errors import BadValue
from creamas_sc.foreign import shown
from creamas_sc.results.observing import Asked
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.validation import check_count, check_seconds


@dataclass(frozen=True)
class Record:
    """What of a simulation is recorded, and where.

    Args:
        folder: Created if it does not exist. Each run is a file of its own there.
        metrics: Called with the environment or multi-environment after each step; returns a dict of
            names and scalars, or an awaitable of one. It may be a name, "module:function", of what
            the simulation's process loads. By default its method ``observe()`` is called, if it
            has one.
        parameters: Names and values, kept with the run, by which runs can be compared.
        observe_every: The agents' ``observe()`` is called in each step whose number this divides.
        connections_every: Likewise, to keep the connections of all agents, and not only of those
            where they have changed: what changes an agent's dict directly is not noticed.
        checkpoint_every: Of a `MultiEnvironment`: before its first step, and after each one whose
            number this divides, a checkpoint is written, from which `creamas_sc.resume` goes on.
        checkpoint_seconds: Likewise, after the first step that ends so long after the last
            checkpoint.
        checkpoints_kept: How many are kept; the older ones are removed.
    """

    folder: str | os.PathLike[str]
    metrics: Callable[[Any], Any] | str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    observe_every: int = 1
    connections_every: int | None = None
    checkpoint_every: int | None = None
    checkpoint_seconds: float | None = None
    checkpoints_kept: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, os.PathLike)):
            raise BadValue(f"record must be a folder or a Record, not {shown(self.folder)}")
        check_count("observe_every", self.observe_every)
        if self.connections_every is not None:
            check_count("connections_every", self.connections_every)
        if self.checkpoint_every is not None:
            check_count("checkpoint_every", self.checkpoint_every)
        check_seconds(self.checkpoint_seconds, "checkpoint_seconds")
        check_count("checkpoints_kept", self.checkpoints_kept)

    @property
    def has_checkpoints(self) -> bool:
        """Whether any are to be written."""
        return self.checkpoint_every is not None or self.checkpoint_seconds is not None

    @classmethod
    def of(cls, record: Any) -> Record:
        """Return ``record``, a folder or a `Record`.

        Raises:
            BadValue: It is neither.
        """
        return record if isinstance(record, Record) else cls(record)

    def fields(self) -> dict[str, Any]:
        """The same for another process.

        Raises:
            BadValue: It has a function, which does not travel.
        """
        if not isinstance(self.metrics, str | None):
            raise BadValue(
                "metrics does not travel to a daemon: give its name, 'module:function', or give "
                "menv_cls a method observe()"
            )
        folder = os.path.abspath(os.fspath(self.folder))
        return {**vars(self), "folder": folder, "parameters": dict(self.parameters)}

    def asks(self, step: int) -> Asked:
        """What is to be observed in a step."""
        every = self.connections_every
        return Asked(step, step % self.observe_every == 0, every is not None and step % every == 0)

    def kept(self) -> dict[str, Any]:
        """The same for a checkpoint, with a function by its name.

        Raises:
            LoadError: It has a function that another process cannot find.
        """
        metrics = self.metrics
        named = metrics if metrics is None else portable_name(metrics)
        return replace(self, metrics=named).fields()
