"""The core: agents, artifacts, environments, simulations."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from creamas_sc.core.agent import CreativeAgent
    from creamas_sc.core.artifact import Artifact
    from creamas_sc.core.environment import Environment
    from creamas_sc.core.simulation import Simulation

__all__ = ["Artifact", "CreativeAgent", "Environment", "Simulation"]

_MODULES = {
    "Artifact": "artifact",
    "CreativeAgent": "agent",
    "Environment": "environment",
    "Simulation": "simulation",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: a client reads artifacts where trio, and so Environment, is missing.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
