"""The verb attach: look on while a simulation runs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from supervisor.cli.daemon_connection import linked
from supervisor.cli.display import Lines
from supervisor.cli.follow import show, watch
from supervisor.cli.params import Daemon, Name

__all__ = ["attach"]


def attach(
    name: Name,
    /,
    *,
    until_done: Annotated[bool, Parameter(help="Return when its steps are done.")] = False,
    json: Annotated[
        bool, Parameter(help="Print JSON, for programs: an object a line and event.")
    ] = False,
    daemon: Daemon = None,
) -> int:
    """Follow a simulation's progress and events.

    Ctrl-C detaches, and the simulation goes on. Ends by itself when the
    simulation does. With --until-done it fails (exit code 1) if not all
    steps were taken.

    For example:

        creamas-supervisor attach novelty
        creamas-supervisor attach novelty --until-done
        creamas-supervisor attach novelty --json | jq .acts_per_second
    """
    with linked(daemon) as (client, _), client.attach(name) as sim:
        return watch(client, sim, Lines(name) if json else show(name), until_done=until_done)
