"""Types of options, and how their values are parsed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter, Token

from creamas_sc.errors import BadValue
from creamas_sc.runtime.validation import MAX_INT, MAX_SECONDS
from creamas_sc.simulation_files import names
from creamas_sc.simulation_files.plan import Batch
from supervisor.cli.exits import Exit, Failure

T = TypeVar("T")
_WHOLE = re.compile("[+-]?[0-9]{1,999}")


def _whole(_kind: Any, tokens: Sequence[Token]) -> int:
    """Accept whole numbers only; cyclopts rounds others."""
    text = tokens[0].value
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


Whole = Parameter(converter=_whole)


def at_least(least: int, most: float = MAX_INT) -> Parameter:
    """Accept numbers from ``least`` to ``most``."""

    def check(_kind: Any, value: float | None) -> None:
        if value is not None and not value >= least:
            raise ValueError(f"must be a number of at least {least}")
        if value is not None and value > most:
            raise ValueError(f"must be a number of at most {most:,.0f}")

    return Parameter(validator=check)


Name = Annotated[str, Parameter(help="The simulation's name, as listed by ls.")]
Daemon = Annotated[
    str | None,
    Parameter(metavar="NAME", help="The daemon's name. Default: CREAMAS_DAEMON, else 'default'."),
]
Json = Annotated[bool, Parameter(help="Print JSON, for programs.")]
Seconds = Annotated[float | None, Parameter(metavar="SECONDS"), at_least(0, MAX_SECONDS)]
Class = Annotated[str | None, Parameter(metavar="CLASS")]
JsonObject = Annotated[str | None, Parameter(metavar="JSON")]


def address(text: str, option: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``; port 0 is any free one."""
    return _checked(option, lambda: names.address(text))


def json_object(text: str, option: str) -> dict[str, Any]:
    """Parse keyword arguments that are given as a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _bad(option, text, """a JSON object, say '{"novelty": 0.2}'""")
    return value


class Classes(names.Classes):
    """Parses names of classes of options, some of them given by files; see there."""

    def __init__(self) -> None:
        super().__init__(Path.cwd())

    def of(self, text: str, option: str) -> str:
        """Return ``module:Class`` for the value of an option."""
        return _checked(option, lambda: self.name(text))


def agent_batch(text: str, classes: Classes, arguments: Mapping[str, Any]) -> Batch:
    """Parse ``CLASS=COUNT``."""
    cls, equals, number = text.rpartition("=")
    if (
        not equals
        or not number.isascii()
        or not number.isdigit()
        or len(number) > 9
        or int(number) == 0
    ):
        raise _bad("--agents", text, "a class and a number, say painters:Painter=24")
    return Batch(classes.of(cls, "--agents"), int(number), arguments)


def _checked(option: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except BadValue as error:
        raise Failure(f"{option} {error}", Exit.USAGE) from None


def _bad(option: str, text: str, expected: str) -> Failure:
    return Failure(f"{option} {text!r}: expected {expected}", Exit.USAGE)
