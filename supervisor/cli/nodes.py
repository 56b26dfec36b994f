"""Commands for other machines: node, nodes."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from creamas_sc.supervisor_client.node_key import read_key
from supervisor.cli import output
from supervisor.cli.daemon_connection import checked_name, connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.params import Daemon, Json, Seconds, Whole, address, at_least

RETRY_SECONDS = 60.0
NAME_LENGTH = 64
NODES_HEAD = ("NAME", "HOST", "CORES", "MEMORY", "PROCESSES", "ENGINE", "HEARD")


def node(
    *,
    join: Annotated[str, Parameter(metavar="HOST:PORT")],
    key_file: Path | None = None,
    key_fd: Annotated[int | None, Whole, at_least(0)] = None,
    name: str | None = None,
    host: str = "",
    cores: Annotated[int | None, Whole, at_least(1)] = None,
    engine: str = "",
    retry: Seconds = RETRY_SECONDS,
) -> int:
    """Let slaves of another machine's simulations run on this one.

    It joins a daemon that was started with --listen, or a script with
    creamas_sc.nodes, and runs slaves until one of them ends; one node a
    machine is enough. Ctrl-C or SIGTERM ends its slaves in order; a second
    one kills them. If it loses the connection, or is not heard for ten
    seconds, it kills them and joins again. It needs the same versions of
    creamas_sc and Python as the other machine, and a copy of its key.

    Slaves get the environment variables, the working folder and the import
    path of the simulation's creator, as far as these fit here: what names
    this machine, its folders, its devices or its job (HOME, PATH, TMPDIR,
    XDG_*, SLURM_*, CUDA_*, ...) is the node's own. What slaves print comes
    out here, not in the log of their simulation.

    For example:

        creamas-supervisor node --join 192.0.2.7:5600 --key-file nodes.key
        srun --ntasks-per-node=1 creamas-supervisor node --join login1:5600 \\
            --key-file ~/nodes.key

    Args:
        join: Where the daemon or script listens for nodes.
        key_file: Has the key of its nodes; must be yours alone (chmod 600).
        key_fd: Instead: a pipe that has the key, a line; at its end the node ends.
        name: What it is called, if no other is. Default: this host's name.
        host: Where its slaves listen. Default: the address that it connects from.
        cores: How many it offers. Default: all that it may use.
        engine: Its id in the engine that started it.
        retry: Seconds to try to join, each time. Default: 60.
    """
    place = address(join, "--join")
    if place[1] == 0:
        raise Failure(f"--join {join!r}: expected the port that the supervisor says", Exit.USAGE)
    if (key_file is None) == (key_fd is None):
        raise Failure("give either --key-file or --key-fd", Exit.USAGE)
    from supervisor.nodes.process import NodeOptions, run

    options = NodeOptions(
        place=place,
        key=None if key_file is None else read_key(key_file),
        key_fd=key_fd,
        name=checked_name(name or socket.gethostname()[:NAME_LENGTH], "node"),
        host=host,
        cores=cores,
        engine=engine,
        retry_seconds=RETRY_SECONDS if retry is None else retry,
    )
    return run(options)


def nodes(*, daemon: Daemon = None, json: Json = False) -> int:
    """List the machines that have joined the daemon.

    Slaves may run on these nodes. HEARD is how many seconds ago a node was
    heard; after 10 it is lost.

    For example:

        creamas-supervisor nodes
        creamas-supervisor nodes --json | jq '.[].cores'
    """
    with connected(daemon) as (client, _):
        found = client.nodes()
        access = None if found or json else client.node_access()
    if access is not None:
        output.note(f"there are no nodes; start one on another machine with {_join(access)}")
        return Exit.DONE
    rows = [
        (
            node["name"],
            node["host"],
            node["cores"],
            f"{node['memory'] / (1 << 30):,.0f} GiB",
            node["processes"],
            node["engine"],
            f"{node['heard']:.0f} s",
        )
        for node in found
    ]
    output.emit(found, json, lambda: output.table(NODES_HEAD, rows))
    return Exit.DONE


def _join(access: Mapping[str, Any]) -> str:
    """Return the command that starts a node, to be typed on the node's machine."""
    host = access["host"]
    if host in ("", "0.0.0.0", "::"):  # all of this machine's
        host = socket.gethostname()
    file = shlex.quote(access["key_file"])
    return (
        f"creamas-supervisor node --join {host}:{access['port']} --key-file {file} (a copy of this "
        "machine's file of that name, if the other machine does not have it)"
    )
