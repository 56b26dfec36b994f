"""Societies of creative agents over several processes, with structured concurrency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from creamas_sc.runtime.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from creamas_sc import client as client
    from creamas_sc import core as core
    from creamas_sc import errors as errors
    from creamas_sc import experiments as experiments
    from creamas_sc import logging as logging
    from creamas_sc import mp as mp
    from creamas_sc import reports as reports
    from creamas_sc import results as results
    from creamas_sc import rpc as rpc
    from creamas_sc import runtime as runtime
    from creamas_sc import serializers as serializers
    from creamas_sc import util as util
    from creamas_sc import verification as verification
    from creamas_sc.core import Artifact, CreativeAgent, Environment, Simulation, agent_factory
    from creamas_sc.experiments import Experiment
    from creamas_sc.logging import ObjectLogger, log_after, log_before
    from creamas_sc.mp import EnvManager, MultiEnvironment, MultiEnvManager
    from creamas_sc.mp.resuming import branch, resume
    from creamas_sc.rpc.exposed import Proxy, expose
    from creamas_sc.runtime.asyncio_thread import run_asyncio
    from creamas_sc.serializers import MsgPack
    from creamas_sc.supervisor_client.launcher import prestart
    from creamas_sc.util import run
    from creamas_sc.verification import verify

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "CreativeAgent",
    "EnvManager",
    "Environment",
    "Experiment",
    "MsgPack",
    "MultiEnvManager",
    "MultiEnvironment",
    "ObjectLogger",
    "Proxy",
    "Simulation",
    "agent_factory",
    "branch",
    "expose",
    "log_after",
    "log_before",
    "prestart",
    "resume",
    "run",
    "run_asyncio",
    "verify",
]


# Imported at first use: the supervisor needs none of it, and a client has no trio.
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "core": ("Artifact", "CreativeAgent", "Environment", "Simulation", "agent_factory"),
        "experiments": ("Experiment",),
        "logging": ("ObjectLogger", "log_after", "log_before"),
        "mp.resuming": ("branch", "resume"),
        "mp": ("EnvManager", "MultiEnvManager", "MultiEnvironment"),
        "supervisor_client.launcher": ("prestart",),
        "rpc.exposed": ("Proxy", "expose"),
        "runtime.asyncio_thread": ("run_asyncio",),
        "serializers": ("MsgPack",),
        "util": ("run",),
        "verification": ("verify",),
    },
    # For `import creamas_sc` and then, say, `creamas_sc.results.open`.
    (
        *("client", "core", "errors", "experiments", "logging", "mp", "page", "reports"),
        *("results", "rpc", "runtime", "serializers", "util", "verification"),
    ),
)
