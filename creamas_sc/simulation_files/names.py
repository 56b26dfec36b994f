"""Classes and addresses as people write them, and where modules are looked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from creamas_sc.errors import BadValue
from creamas_sc.runtime.paths import others_may_write

HIGHEST_PORT: Final = 65535
_NUMBER: Final = re.compile("[0-9]{1,9}")


def address(text: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``; port 0 is any free one.

    Raises:
        BadValue: It is not that.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _NUMBER.fullmatch(port):
        raise _bad(text, "HOST:PORT, say localhost:5556, or localhost:0 for any free port")
    if int(port) > HIGHEST_PORT:
        raise _bad(text, f"a port up to {HIGHEST_PORT}")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Classes:
    """Parses names of classes, some of them given by files.

    Args:
        folder: What names of files are relative to.

    Attributes:
        folders: Of those files; the simulation's processes must have them on their import path.
    """

    def __init__(self, folder: Path) -> None:
        self.folders: list[str] = []
        self._folder = folder
        self._files: dict[str, Path] = {}

    def name(self, text: str) -> str:
        """Return ``module:Class`` for this same form or for ``path/to/module.py:Class``.

        Raises:
            BadValue: It is neither.
        """
        module, colon, cls = text.rpartition(":")
        if not colon or not module or not cls:
            raise _bad(text, "package.module:Class or file.py:Class")
        if not module.endswith(".py") and os.sep not in module:
            return text
        file = Path(os.path.abspath(self._folder / module))
        if not file.is_file() or file.suffix != ".py" or not file.stem.isidentifier():
            why = "is not a valid module name" if file.is_file() else "does not exist"
            raise _bad(text, f"package.module:Class or file.py:Class; {file} {why}")
        if file.stem in sys.stdlib_module_names:
            raise _bad(text, f"a file of another name: {file.stem} is a module of Python's")
        other = self._files.setdefault(file.stem, file.resolve())
        if other != file.resolve():
            raise _bad(text, f"a file of another name than {other}: both are {file.stem}")
        folder = str(file.parent)
        if folder not in self.folders:
            self.folders.append(folder)
        return f"{file.stem}:{cls}"


def look_in(folders: Sequence[str], here: str) -> bool:
    """Look for modules in these folders first and ``here`` last, where a daemon's processes do.

    Returns:
        False if ``here`` is left out, because other users may write to it.
    """
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    if here in sys.path:
        return True
    if others_may_write(here):
        return False
    sys.path.append(here)
    return True


def _bad(text: str, expected: str) -> BadValue:
    return BadValue(f"{text!r}: expected {expected}")
