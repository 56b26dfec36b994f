"""The part of a daemon that is inside its supervisor: the registry, a listener, and the way to end.

`stop` answers all who ask, and only then is ``over`` set, at which `supervisor.root` ends the
process: the last caller whose answer is ready sets it, so each answer is queued before.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from pathlib import Path

import trio

from creamas_sc.runtime.descriptors import allow_descriptors
from creamas_sc.runtime.installation import installed_version
from creamas_sc.runtime.log_setup import open_log
from creamas_sc.supervisor_client import messages
from creamas_sc.supervisor_client.spec import pack
from supervisor.daemon.listener import MAX_CONNECTIONS, Listener
from supervisor.daemon.place import DaemonPlace
from supervisor.daemon.registry import Registry, check_end
from supervisor.nodes.registry import NodeRegistry
from supervisor.rpc_server import Method, start_apart
from supervisor.timeouts import GRACE_SECONDS

log = logging.getLogger(__name__)

# A connection, or a process of a simulation, takes a descriptor or three.
WANTED_DESCRIPTORS = 1 << 16


class DaemonService:
    """A daemon, as its clients and its owner see it.

    Args:
        nursery: Runs everything.
        over: Set when the daemon has to end.
        nodes: Of its simulations.
    """

    _stopping = False
    _callers = 0

    def __init__(
        self,
        settings: messages.DaemonSettings,
        nursery: trio.Nursery,
        over: trio.Event,
        nodes: NodeRegistry,
    ) -> None:
        self._settings = settings
        self._nursery = nursery
        self._over = over
        self._since = time.time()
        self._version = installed_version()  # an upgrade of the files does not change what runs
        self._stopped = trio.Event()
        self._results: list[messages.NamedStopResult] = []
        folder = Path(settings["log"]).with_suffix("")
        registry = self._registry = Registry(nursery, folder, nodes)
        methods: list[Method] = [
            registry.create, registry.undo_create, registry.ls, registry.inspect,
            registry.host_status, registry.close, registry.kill, self.status, self.stop,
            registry.stacks, nodes.nodes, nodes.node_access,
        ]  # fmt: skip
        # However many connect, simulations must find descriptors for their processes.
        connections = min(MAX_CONNECTIONS, allow_descriptors(WANTED_DESCRIPTORS) // 2)
        by_name = {method.__name__: method for method in methods}
        place = DaemonPlace(Path(settings["socket"]), settings["pid"])
        self._listener = Listener(place, by_name, registry.find, self._end_replaced, connections)

    @classmethod
    def open(
        cls,
        settings: messages.DaemonSettings,
        nursery: trio.Nursery,
        over: trio.Event,
        nodes: NodeRegistry,
    ) -> DaemonService:
        """Open the log and the socket, and let clients in.

        Raises:
            StartError: The socket cannot be opened.
        """
        open_log(
            settings["log"], console=settings["console"], process="supervisor", pid=os.getpid()
        )
        self = cls(settings, nursery, over, nodes)
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
        self._begin_stop(grace, payload)
        self._callers += 1
        try:
            await self._stopped.wait()
        finally:
            self._callers -= 1
            self._end_when_answered()
        return self._results

    def _end_replaced(self) -> None:
        """End in order: no client will find this daemon again."""
        log.error("another daemon of the name %s has taken its place", self._settings["name"])
        self._begin_stop(GRACE_SECONDS, b"")

    def _begin_stop(self, grace: float, payload: bytes) -> None:
        if not self._stopping:
            self._stopping = True
            self._listener.shut()
            start_apart(self._nursery, self._stop, grace, payload)

    async def _stop(self, grace: float, payload: bytes) -> None:
        log.info("daemon %s stops", self._settings["name"])
        self._results = await self._registry.close_all(grace, payload)
        self._stopped.set()
        self._end_when_answered()

    def _end_when_answered(self) -> None:
        # Set by the last caller: its answer is queued before anything ends.
        if self._stopped.is_set() and not self._callers:
            self._over.set()

    async def aclose(self, *, owner_gone: bool) -> None:
        """End all of it, within a bound.

        Args:
            owner_gone: Whether this is because the daemon's owner has ended; clients are to know.
        """
        self._listener.shut()
        why = f"the daemon (pid {self._settings['pid']}) is gone" if owner_gone else ""
        payload = pack((None, GRACE_SECONDS, why)) if why else b""
        await self._registry.close_all(GRACE_SECONDS, payload, why)
        await self._listener.aclose()
