"""Which script this process runs, or, in a slave, its master does.

Little is imported here: a script that calls `creamas_sc.prestart` waits for these imports before
its slaves' processes start.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import NamedTuple

MAIN = "__main__"


class MainScript(NamedTuple):
    """Where the script's classes can be loaded from.

    Attributes:
        file: Absolute path.
        package: Set for ``python -m package.module``, where relative imports must work.
        argv: The script's ``sys.argv``.
    """

    file: str
    package: str | None
    argv: tuple[str, ...]

    @classmethod
    def of_this_process(cls) -> MainScript | None:
        """Return the script, in a slave its master's; None for a notebook, ``-c`` or stdin."""
        if _adopted is not None:
            return _adopted
        main = sys.modules.get(MAIN)
        # After a script that `python -i` has run, its ``__file__`` is gone.
        file = getattr(main, "__file__", None) or (sys.argv[0] if sys.flags.inspect else None)
        path = _found(file) if file else ""
        if not path:
            return None
        return cls(path, getattr(main, "__package__", None), tuple(sys.argv))


@functools.lru_cache(maxsize=1)  # called at each spawn, for one file
def _found(file: str) -> str:
    """Return the absolute path of ``file``, "" if there is no such file.

    It may be in an archive, as a zip application's is.
    """
    path = os.path.abspath(file)
    found = os.path.isfile(path) or any(folder.is_file() for folder in Path(path).parents)
    return path if found else ""


# In a slave, its master's script.
_adopted: MainScript | None = None


def adopt_script(source: MainScript | None) -> None:
    """Make ``__main__:`` names mean ``source`` in this process."""
    global _adopted
    _adopted = source


def adopted_script() -> MainScript | None:
    """Return what `adopt_script` has set; None if this process has a script of its own."""
    return _adopted


def in_slave() -> bool:
    """Return whether ``__main__:`` names mean the script of another process."""
    return _adopted is not None
