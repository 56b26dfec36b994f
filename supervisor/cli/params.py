"""Options that several verbs have, each described once."""

from __future__ import annotations

import math
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = ["Daemon", "Json", "Name", "Seconds", "at_least"]


def at_least(least: int) -> Any:
    """A validator of numbers."""

    def check(_kind: Any, value: float | None) -> None:
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"must be a number of at least {least}")

    return check


Name = Annotated[str, Parameter(help="The simulation's name; ls shows what there is.")]
Daemon = Annotated[
    str | None,
    Parameter(metavar="NAME", help="The daemon's name; else CREAMAS_DAEMON, else 'default'."),
]
Json = Annotated[bool, Parameter(help="Print JSON, for programs.")]
Seconds = Annotated[float | None, Parameter(metavar="SECONDS", validator=at_least(0))]
