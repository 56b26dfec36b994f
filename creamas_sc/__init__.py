"""Societies of creative agents over several processes, with structured concurrency."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import explain_import
from creamas_sc.garbage import no_collection, only_imports

if TYPE_CHECKING:
    from creamas_sc.core.agent import CreativeAgent
    from creamas_sc.core.artifact import Artifact
    from creamas_sc.core.environment import Environment
    from creamas_sc.core.simulation import Simulation
    from creamas_sc.logging import ObjectLogger, log_after, log_before
    from creamas_sc.mp import EnvManager, MultiEnvironment, MultiEnvManager
    from creamas_sc.rpc import Proxy, expose
    from creamas_sc.serializers import MsgPack
    from creamas_sc.util import run

__version__ = "0.1.0"

_MODULES = {
    "Artifact": "core.artifact",
    "CreativeAgent": "core.agent",
    "EnvManager": "mp",
    "Environment": "core.environment",
    "MsgPack": "serializers",
    "MultiEnvManager": "mp",
    "MultiEnvironment": "mp",
    "ObjectLogger": "logging",
    "Proxy": "rpc",
    "Simulation": "core.simulation",
    "expose": "rpc",
    "log_after": "logging",
    "log_before": "logging",
    "run": "util",
}

__all__ = [
    "Artifact",
    "CreativeAgent",
    "EnvManager",
    "Environment",
    "MsgPack",
    "MultiEnvManager",
    "MultiEnvironment",
    "ObjectLogger",
    "Proxy",
    "Simulation",
    "expose",
    "log_after",
    "log_before",
    "run",
]


def __getattr__(name: str) -> Any:
    # Imported at first use: the supervisor needs none of it, and a client has no trio.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        raise explain_import(error) from None
    return getattr(module, name)


def _script() -> FrameType | None:
    """What imports this, if it is a script that names, in its own code, what has slaves."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") != "__main__":
        return None
    names = frame.f_code.co_names
    is_script = "__file__" in frame.f_globals
    return frame if is_script and {"MultiEnvironment", f"{__name__}.mp"} & {*names} else None


def _begin_early(script: FrameType) -> None:
    """Have processes come up while the script's imports go on."""
    from creamas_sc.launch import start_early

    start_early()
    try:
        with no_collection():
            import_module(f"{__name__}.mp")
    except ImportError:  # it may have no use for it; else it is told once it does
        return
    if script.f_code.co_name == "<module>" and only_imports(script.f_globals):
        # What modules are made of stays: to look through it again and again, last of all at the
        # interpreter's end, takes longer than most steps.
        gc.freeze()


if (_importer := _script()) is not None:
    _begin_early(_importer)
del _importer
