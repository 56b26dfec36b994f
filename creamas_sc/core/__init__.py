"""Agents, artifacts, environments and simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from creamas_sc.runtime.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from creamas_sc.core.agent import CreativeAgent, agent_factory
    from creamas_sc.core.artifact import Artifact
    from creamas_sc.core.environment import Environment
    from creamas_sc.core.simulation import Simulation

__all__ = ["Artifact", "CreativeAgent", "Environment", "Simulation", "agent_factory"]

# Imported at first use: a client reads artifacts where trio, and so Environment, is missing.
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "agent": ("CreativeAgent", "agent_factory"),
        "artifact": ("Artifact",),
        "environment": ("Environment",),
        "simulation": ("Simulation",),
    },
)
