"""Values of options: addresses, JSON, classes, agents."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.cli.exits import Exit, Failure

__all__ = ["AgentBatch", "Classes", "address", "herd", "json_object", "spread"]

HIGHEST_PORT = 65535


def address(text: str, option: str) -> tuple[str, int]:
    """``HOST:PORT``; port 0 is any free one."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise _bad(option, text, "HOST:PORT, say localhost:5556, or localhost:0 for any free port")
    if int(port) > HIGHEST_PORT:
        raise _bad(option, text, f"a port up to {HIGHEST_PORT}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def json_object(text: str, option: str) -> dict[str, Any]:
    """Keyword arguments as JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _bad(option, text, """a JSON object, say '{"novelty": 0.2}'""")
    return value


@dataclass(frozen=True)
class AgentBatch:
    """Agents of one class."""

    cls: str
    number: int


def herd(text: str, classes: Classes) -> AgentBatch:
    """``pkg.mod:Cls=COUNT``."""
    cls, equals, number = text.rpartition("=")
    if not equals or not number.isascii() or not number.isdigit() or int(number) == 0:
        raise _bad("--agents", text, "a class and a number, say painters:Painter=24")
    return AgentBatch(classes.name(cls, "--agents"), int(number))


class Classes:
    """Names of classes, some given by files.

    Attributes:
        folders: Of those files; the simulation's processes must have them on their import path.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []

    def name(self, text: str, option: str) -> str:
        """``pkg.mod:Cls``, given as this or as ``path/to/mod.py:Cls``."""
        module, colon, cls = text.rpartition(":")
        if not colon or not module or not cls:
            raise _bad(option, text, "package.module:Class or file.py:Class")
        if not module.endswith(".py") and os.sep not in module:
            return text
        file = Path(module).absolute()
        if not file.is_file() or file.suffix != ".py" or not file.stem.isidentifier():
            why = "is not named as a module is" if file.is_file() else "is not there"
            raise _bad(option, text, f"package.module:Class or file.py:Class; {file} {why}")
        folder = str(file.parent)
        if folder not in self.folders:
            self.folders.append(folder)
        return f"{file.stem}:{cls}"


def spread(number: int, places: Sequence[str]) -> list[tuple[str, int]]:
    """A number shared out as evenly as can be, the first places getting what is over."""
    share, over = divmod(number, len(places))
    shares = [(place, share + (index < over)) for index, place in enumerate(places)]
    return [(place, part) for place, part in shares if part]


def _bad(option: str, text: str, expected: str) -> Failure:
    return Failure(f"{option} {text!r}: expected {expected}", Exit.USAGE)
