"""Nodes on a cluster of dask.distributed: one beside each of its workers.

::

    from dask_jobqueue import SLURMCluster

    with SLURMCluster(cores=16, memory="32GB", processes=1, security=True) as cluster:
        cluster.scale(jobs=4)
        with MultiEnvironment(("localhost", 0), Environment, seed=1, nodes=cluster) as menv:
            run(menv.spawn_slaves(64, Environment, EnvManager))

dask only starts and ends the nodes; slaves are not dask's workers, and share no process with them.
A worker that comes later gets a node too, as does one that its nanny has started again. A node
ends with its worker, and workers end with their scheduler. With
several workers on a machine it has several nodes, each of which offers all of its cores: so let a
job have one (``processes=1``).

An open scheduler runs what anybody sends it. So one whose scheduler can be reached from other
machines is refused unless it uses TLS: create the cluster with ``security=True``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from distributed import Client

from creamas_sc.errors import BadValue, StartError
from creamas_sc.foreign import summary_of
from creamas_sc.nodes import NodeAccess, Nodes
from creamas_sc.nodes.dask_plugin import END_SECONDS, NodePlugin
from creamas_sc.rpc.addresses import address_towards, is_loopback, is_wildcard

DASK_SECONDS: Final = 30.0
"""How long the cluster may take to answer."""
STOP_SECONDS: Final = END_SECONDS + 5.0
"""How long it may take to end the nodes."""

log = logging.getLogger(__name__)


class DaskNodes(Nodes):
    """A node beside each worker of a dask cluster, for as long as a simulation has slaves.

    Args:
        cluster: A cluster or a client of dask, not one for coroutines (``asynchronous=True``).
        listen: Host and port at which the supervisor listens for the nodes; by default this
            machine's address towards the scheduler, and a free port.
        count: How many have to be there before slaves are started; by default as many as the
            cluster has workers by then, at least one.
        seconds: How long they are waited for.

    Raises:
        BadValue: An argument is not valid, or the scheduler is open.
    """

    def __init__(
        self,
        cluster: Any,
        listen: tuple[str, int] | None = None,
        count: int | None = None,
        seconds: float = 60.0,
    ) -> None:
        if cluster.asynchronous:
            raise BadValue("nodes: a cluster or client of dask with asynchronous=True has no use")
        self._cluster = cluster
        is_client = isinstance(cluster, Client)
        address = cluster.scheduler.address if is_client else cluster.scheduler_address
        _check_closed(address)
        # The same as that of the supervisor, which may listen on all of this machine's.
        self._host = _host_towards(address)
        super().__init__(listen or (self._host, 0), None, count or 1, seconds)
        self._count_given = count is not None
        self._client: Any = None
        self._plugin = ""

    def start(self, access: NodeAccess) -> None:
        """Have each worker, present and future, start a node.

        Raises:
            BadValue: The scheduler is open.
            StartError: The cluster does not answer, or a worker cannot start one.
        """
        host = self._host if is_wildcard(access.host) else access.host
        name = f"creamas-nodes-{os.urandom(4).hex()}"
        plugin = NodePlugin(name, access._replace(host=host))
        try:
            self._client = client = self._connected()
            # What the client connects to may be a way to it, as through ssh.
            _check_closed(_ask(client, client.scheduler_info, seconds=DASK_SECONDS)["address"])
            if not self._count_given:
                self.count = max(len(_ask(client, client.nthreads, seconds=DASK_SECONDS)), 1)
            self._plugin = name
            client.subscribe_topic(name, _warn)
            _ask(client, client.register_plugin, plugin, seconds=DASK_SECONDS)
        except BadValue:
            raise
        except Exception as error:  # of dask, or of a worker
            raise StartError(
                f"no nodes can be started on the cluster: {summary_of(error)}"
            ) from error

    def _connected(self) -> Any:
        if isinstance(self._cluster, Client):
            return self._cluster
        return Client(self._cluster, timeout=DASK_SECONDS, set_as_default=False)

    def stop(self) -> None:
        """End all nodes, wherever they are."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._plugin and client.status == "running":
            try:
                _ask(client, client.unregister_worker_plugin, self._plugin, seconds=STOP_SECONDS)
            except Exception as error:  # a node ends without its supervisor, too
                log.debug("the nodes' plugin is still on the cluster: %s", summary_of(error))
        self._plugin = ""
        if client is not self._cluster:
            client.close(STOP_SECONDS)


def _ask(client: Any, call: Callable[..., Any], *args: Any, seconds: float) -> Any:
    """Call a method of the client, in its event loop; raise a TimeoutError after so long."""

    async def answer() -> Any:
        value = call(*args)
        return await value if isinstance(value, Awaitable) else value

    return client.sync(answer, callback_timeout=seconds)


def _warn(event: tuple[float, str]) -> None:
    """A node has ended with an error, as its plugin tells."""
    log.warning("%s", event[1])


def _check_closed(address: str) -> None:
    """Check that a scheduler is one that strangers cannot use.

    Raises:
        BadValue: It is open.
    """
    kind, host = urlsplit(address).scheme, urlsplit(address).hostname
    if kind not in ("tls", "inproc") and not is_loopback(host or ""):
        raise BadValue(
            f"the scheduler of the dask cluster, {address}, runs what anybody sends it, without "
            "TLS: create the cluster with security=True"
        )


def _host_towards(address: str) -> str:
    """The address of this machine from which it reaches a scheduler's."""
    place = urlsplit(address)
    if place.scheme == "inproc":  # workers are threads of this process
        return "127.0.0.1"
    try:
        return address_towards(place.hostname or "")
    except OSError as error:
        raise BadValue(f"nodes: the scheduler {address} cannot be reached: {error}") from error
