"""Types of options, and how their values are parsed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter, Token

from creamas_sc.runtime.validation import MAX_INT, MAX_SECONDS
from supervisor.cli.exits import Exit, Failure

HIGHEST_PORT = 65535
_NUMBER = re.compile("[0-9]{1,9}")
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
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _NUMBER.fullmatch(port):
        raise _bad(option, text, "HOST:PORT, say localhost:5556, or localhost:0 for any free port")
    if int(port) > HIGHEST_PORT:
        raise _bad(option, text, f"a port up to {HIGHEST_PORT}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def json_object(text: str, option: str) -> dict[str, Any]:
    """Parse keyword arguments that are given as a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _bad(option, text, """a JSON object, say '{"novelty": 0.2}'""")
    return value


class Classes:
    """Parses names of classes, some of them given by files.

    Attributes:
        folders: Of those files; the simulation's processes must have them on their import path.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []
        self._files: dict[str, Path] = {}

    def name(self, text: str, option: str) -> str:
        """Return ``module:Class`` for this same form or for ``path/to/module.py:Class``."""
        module, colon, cls = text.rpartition(":")
        if not colon or not module or not cls:
            raise _bad(option, text, "package.module:Class or file.py:Class")
        if not module.endswith(".py") and os.sep not in module:
            return text
        file = Path(module).absolute()
        if not file.is_file() or file.suffix != ".py" or not file.stem.isidentifier():
            why = "is not a valid module name" if file.is_file() else "does not exist"
            raise _bad(option, text, f"package.module:Class or file.py:Class; {file} {why}")
        if file.stem in sys.stdlib_module_names:
            raise _bad(option, text, f"a file of another name: {file.stem} is a module of Python's")
        other = self._files.setdefault(file.stem, file.resolve())
        if other != file.resolve():
            raise _bad(option, text, f"a file of another name than {other}: both are {file.stem}")
        folder = str(file.parent)
        if folder not in self.folders:
            self.folders.append(folder)
        return f"{file.stem}:{cls}"


class AgentBatch(NamedTuple):
    """A number of agents of one class."""

    cls: str
    number: int


def agent_batch(text: str, classes: Classes) -> AgentBatch:
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
    return AgentBatch(classes.name(cls, "--agents"), int(number))


def spread(number: int, places: Sequence[str]) -> list[tuple[str, int]]:
    """Share out a number as evenly as possible; the first places get the remainder."""
    share, rest = divmod(number, len(places))
    shares = [(place, share + (index < rest)) for index, place in enumerate(places)]
    return [(place, part) for place, part in shares if part]


def _bad(option: str, text: str, expected: str) -> Failure:
    return Failure(f"{option} {text!r}: expected {expected}", Exit.USAGE)
