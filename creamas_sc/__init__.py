"""Societies of creative agents over several processes, with structured concurrency."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from creamas_sc.processes import prestart
from creamas_sc.runtime.installation import explain_import

if TYPE_CHECKING:
    from creamas_sc.core.agent import CreativeAgent
    from creamas_sc.core.artifact import Artifact
    from creamas_sc.core.environment import Environment
    from creamas_sc.core.simulation import Simulation
    from creamas_sc.logging import ObjectLogger, log_after, log_before
    from creamas_sc.mp import EnvManager, MultiEnvironment, MultiEnvManager
    from creamas_sc.rpc.exposed import Proxy, expose
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
    "Proxy": "rpc.exposed",
    "Simulation": "core.simulation",
    "expose": "rpc.exposed",
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


prestart.begin()
