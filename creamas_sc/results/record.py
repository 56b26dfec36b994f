"""What of a simulation is to be recorded, and where."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from creamas_sc.errors import BadValue
from creamas_sc.foreign import shown
from creamas_sc.results.observing import Asked
from creamas_sc.runtime.validation import check_count


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
    """

    folder: str | os.PathLike[str]
    metrics: Callable[[Any], Any] | str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    observe_every: int = 1
    connections_every: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, os.PathLike)):
            raise BadValue(f"record must be a folder or a Record, not {shown(self.folder)}")
        check_count("observe_every", self.observe_every)
        if self.connections_every is not None:
            check_count("connections_every", self.connections_every)

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
        return {
            "folder": os.path.abspath(os.fspath(self.folder)),
            "metrics": self.metrics,
            "parameters": dict(self.parameters),
            "observe_every": self.observe_every,
            "connections_every": self.connections_every,
        }

    def asks(self, step: int) -> Asked:
        """What is to be observed in a step."""
        every = self.connections_every
        return Asked(step, step % self.observe_every == 0, every is not None and step % every == 0)
