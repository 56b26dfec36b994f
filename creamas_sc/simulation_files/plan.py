"""What a simulation is made of, from a file or the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Batch:
    """A number of agents of one class.

    Attributes:
        cls: Its name, ``module:Class``.
        arguments: Of their ``__init__``.
    """

    cls: str
    number: int
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Connections:
    """How agents are connected.

    Attributes:
        graph: Name of a generator of NetworkX; None for random connections.
        arguments: Of the generator.
        random: How many others each agent is connected to, without ``graph``.
        place: Where this is said, for errors.
    """

    graph: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    random: int = 0
    place: str = ""


@dataclass(frozen=True)
class Plan:
    """A simulation.

    Attributes:
        create: What `DaemonAPI.create` takes.
        agents: In the order of spawning.
        steps: How many to take; None for none.
        folder: The working folder of its processes; None for that of this process.
        folders: Where modules are looked for before any other place.
    """

    create: Mapping[str, Any]
    agents: Sequence[Batch] = ()
    connections: Connections | None = None
    steps: int | None = None
    folder: Path | None = None
    folders: Sequence[str] = ()


def spread(number: int, places: Sequence[str]) -> list[tuple[str, int]]:
    """Share out a number as evenly as possible; the first places get the remainder."""
    share, rest = divmod(number, len(places))
    shares = [(place, share + (index < rest)) for index, place in enumerate(places)]
    return [(place, part) for place, part in shares if part]
