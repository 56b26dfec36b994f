"""Other machines for a simulation's slaves.

On each of them runs one process, a *node*, that joins the supervisor over the network and starts
slaves there as they are started here. An engine can start nodes: see `creamas_sc.nodes.dask_nodes`
and ``examples/cluster``. Or other means do::

    nodes = Nodes(("0.0.0.0", 5600), key_file="nodes.key", count=4)
    with MultiEnvironment(("localhost", 0), Environment, seed=1, nodes=nodes) as menv:
        run(menv.spawn_slaves(64, Environment, EnvManager))

    # on each of the other machines, which has a copy of the file
    creamas-supervisor node --join HOST:5600 --key-file nodes.key

The supervisor of a daemon listens for nodes if it is told to (``creamas-supervisor start
--listen``), and simulations ask for them with ``place="nodes"``.

What differs from one machine:

* **Code.** Slaves load what the script, or the daemon's host, has loaded of the user's modules: it
  is sent to the nodes. What else they import, and files that they read, must be on their machine.
* **Losses.** A node that is cut off for ten seconds kills its slaves; then they are lost, and with
  ``restart="transient"`` or ``"permanent"`` they are started again, where they were or on another
  node, at the same addresses.
* **Folders.** A record is written by the master. Checkpoints, and what slaves save in a folder, are
  written by each slave on its own machine: checkpoints need a folder that all machines share.
* **Environment variables and logs**: see ``creamas-supervisor node --help``.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from creamas_sc.errors import BadValue
from creamas_sc.foreign import shown
from creamas_sc.runtime.validation import check_count, check_place, check_seconds
from creamas_sc.supervisor_client.messages import NodeInfo
from creamas_sc.supervisor_client.node_key import KEY_BYTES, make_key

__all__ = ["NodeAccess", "NodeInfo", "Nodes", "of"]

log = logging.getLogger(__name__)

_DASK = {"distributed.client.Client", "distributed.deploy.cluster.Cluster"}


class NodeAccess(NamedTuple):
    """What a node needs to join a supervisor.

    Attributes:
        host: At which the supervisor listens; "0.0.0.0" or "::" for each of its machine's.
        port: The same; never 0.
        key: Shared by the supervisor and all its nodes.
    """

    host: str
    port: int
    key: bytes

    def __repr__(self) -> str:  # without the key: it may be shown or logged
        return f"<NodeAccess at {self.host}:{self.port}>"


class Nodes:
    """Nodes that are started by other means, as by Slurm's ``srun``.

    A subclass can start them: see `start` and `stop`.

    Args:
        listen: Host and port at which the supervisor listens for them; port 0 is any free one.
        key_file: Has the key that they need; it is made if there is none. With None a key is drawn,
            which only `start` gets to know.
        count: How many have to be there before slaves are started.
        seconds: How long they are waited for.

    Attributes:
        lease: Seconds without a word from a node after which it ends its slaves, and they are lost.

    Raises:
        BadValue: An argument is not valid.
    """

    lease = 10.0

    def __init__(
        self,
        listen: tuple[str, int] = ("0.0.0.0", 0),
        key_file: str | os.PathLike[str] | None = None,
        count: int = 1,
        seconds: float = 60.0,
    ) -> None:
        self.listen = check_place(listen, "listen")
        check_count("count", count)
        check_seconds(seconds, "seconds", endless=False)
        self.key_file = None if key_file is None else Path(key_file)
        self.count = count
        self.seconds = seconds

    def key(self) -> bytes:
        """The key of its file, or a new one.

        Raises:
            BadValue: The file cannot be read or made, or has no key.
        """
        return os.urandom(KEY_BYTES) if self.key_file is None else make_key(self.key_file)

    def start(self, access: NodeAccess) -> None:
        """Start nodes; called in a thread once the supervisor listens, and may set `count`.

        An error that it raises ends the start of slaves.
        """
        if self.key_file is None:
            raise BadValue(
                "nodes that are started by other means need a key: Nodes(key_file=...), the path "
                "of a file that they can read"
            )
        log.info(
            "waiting for nodes: creamas-supervisor node --join %s:%d --key-file %s",
            access.host,
            access.port,
            self.key_file.absolute(),
        )

    def stop(self) -> None:
        """Stop what `start` has started, also where that failed; called in a thread."""


def of(value: Any) -> Nodes | None:
    """The nodes that a user's ``nodes=`` means.

    Args:
        value: `Nodes`, a cluster or client of dask, or None.

    Raises:
        BadValue: It is none of these.
    """
    if value is None or isinstance(value, Nodes):
        return value
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(value).__mro__}
    if names & _DASK:
        # dask is large, and imported already where somebody has a cluster.
        nodes: Nodes = import_module("creamas_sc.nodes.dask_nodes").DaskNodes(value)
        return nodes
    raise BadValue(
        "nodes must be creamas_sc.nodes.Nodes, or a cluster or client of dask.distributed, not "
        f"{shown(value)}"
    )
