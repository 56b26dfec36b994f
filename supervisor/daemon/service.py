"""The part of a daemon that is inside its supervisor: the registry, a listener, and the way to end.

`stop` answers all who ask, and only then is ``over`` set, at which `supervisor.root` ends the
process: the last caller whose answer is ready sets it, so each answer is queued before.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import resource
import time
from pathlib import Path

import trio

from creamas_sc.errors import BadValue
from creamas_sc.processes import messages
from creamas_sc.runtime.log_setup import open_log
from supervisor.actors.tractor_adapter import Tree
from supervisor.daemon.listener import MAX_CONNECTIONS, Listener
from supervisor.daemon.registry import Registry, check_end
from supervisor.rpc_server import start_apart
from supervisor.timeouts import GRACE_SECONDS

__all__ = ["DaemonService"]

log = logging.getLogger(__name__)

# A connection, or a process of a simulation, takes a descriptor or three.
WANTED_DESCRIPTORS = 1 << 16


class DaemonService:
    """A daemon, as its clients and its owner see it.

    Args:
        tree: Where the simulations run.
        nursery: Runs everything.
        over: Set when the daemon has to end.
    """

    def __init__(
        self, settings: messages.DaemonSettings, tree: Tree, nursery: trio.Nursery, over: trio.Event
    ) -> None:
        self._settings = settings
        self._nursery = nursery
        self._over = over
        self._since = time.time()
        self._version = _installed_version()
        self._stopped = trio.Event()
        self._stopping = False
        self._callers = 0
        self._results: list[messages.NamedStopResult] = []
        folder = Path(settings["log_folder"]) / settings["name"]
        self._registry = Registry(tree, nursery, folder)
        methods = {**self._registry.methods, "status": self.status, "stop": self.stop}
        limit = _raise_descriptor_limit()
        # However many connect, simulations must find descriptors for their processes.
        connections = min(MAX_CONNECTIONS, limit // 2)
        path = Path(settings["socket"])
        self._listener = Listener(path, methods, self._registry.find, connections)

    @classmethod
    def open(
        cls, settings: messages.DaemonSettings, tree: Tree, nursery: trio.Nursery, over: trio.Event
    ) -> DaemonService:
        """Open the log and the socket, and let clients in.

        Raises:
            BadValue: A setting is missing.
            StartError: The socket cannot be opened.
        """
        try:
            open_log(
                settings["log"], console=settings["console"], process="supervisor", pid=os.getpid()
            )
            self = cls(settings, tree, nursery, over)
        except KeyError as error:
            raise BadValue(f"the setting {error} is missing") from error
        start_apart(nursery, self._listener.run)
        log.info("daemon %s listens at %s", settings["name"], settings["socket"])
        return self

    async def status(self) -> dict[str, object]:
        """What the daemon is, and how much there is in it."""
        return {
            "name": self._settings["name"],
            "pid": self._settings["pid"],
            "version": self._version,
            "python": platform.python_version(),
            "since": self._since,
            "socket": self._settings["socket"],
            "log": self._settings["log"],
            "simulations": len(self._registry),
            "clients": self._listener.clients,
        }

    async def stop(
        self, grace: float = GRACE_SECONDS, payload: bytes = b""
    ) -> list[messages.NamedStopResult]:
        """Close all simulations, then end the daemon, even if the caller goes.

        Returns:
            As of `Registry.close`, one for each simulation.
        """
        check_end(grace, payload)
        if not self._stopping:
            self._stopping = True
            self._listener.shut()
            start_apart(self._nursery, self._stop, grace, payload)
        self._callers += 1
        try:
            await self._stopped.wait()
        finally:
            self._callers -= 1
            self._end_when_answered()
        return self._results

    async def _stop(self, grace: float, payload: bytes) -> None:
        log.info("daemon %s stops", self._settings["name"])
        self._results = await self._registry.close_all(grace, payload)
        self._stopped.set()
        self._end_when_answered()

    def _end_when_answered(self) -> None:
        # Set by the last caller: its answer is queued before anything ends.
        if self._stopped.is_set() and not self._callers:
            self._over.set()

    async def aclose(self) -> None:
        """End all of it, within a bound."""
        self._listener.shut()
        await self._registry.close_all()
        await self._listener.aclose()


def _installed_version() -> str:
    try:
        return importlib.metadata.version("creamas-sc")
    except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
        return "unknown"


def _raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    limit = min(wanted, WANTED_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
