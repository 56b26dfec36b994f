"""What a script that is to have slaves does with its first import of this package.

Its imports take as long as all else of its start, and take longest at its end again: so its
processes come up beside them, and they are not searched for garbage.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import FrameType

from creamas_sc.runtime.gc_control import gc_paused, only_imports

__all__ = ["begin"]

_PACKAGE = __name__.partition(".")[0]
_WITH_SLAVES = {"MultiEnvironment", f"{_PACKAGE}.mp"}


def begin() -> None:
    """Do it, if what imports this package is a script that names what has slaves."""
    script = _script()
    if script is None:
        return
    from creamas_sc.processes.launcher import start_early

    start_early()
    try:
        with gc_paused():
            import_module(f"{_PACKAGE}.mp")
    except ImportError:  # it may have no use for it; else it is told once it does
        return
    if script.f_code.co_name == "<module>" and only_imports(script.f_globals):
        # What modules are made of stays: to look through it again and again, last of all at the
        # interpreter's end, takes longer than most steps.
        gc.freeze()


def _script() -> FrameType | None:
    """The script's frame; None for any other module, an interpreter's prompt or a notebook."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and _is_import(frame):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") != "__main__":
        return None
    named = _WITH_SLAVES.intersection(frame.f_code.co_names)
    return frame if named and "__file__" in frame.f_globals else None


def _is_import(frame: FrameType) -> bool:
    """Whether it is of the import system, or of this package's own import."""
    imported = frame.f_globals.get("__name__") in (_PACKAGE, __name__)
    return imported or frame.f_code.co_filename.startswith("<frozen importlib")
