"""The command page: a page in a browser that shows a simulation, or what one has recorded."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from creamas_sc.errors import ConnectionLost
from creamas_sc.runtime.installation import how_to_install
from supervisor.cli.daemon_connection import checked_name, chosen_daemon, connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import note, out
from supervisor.cli.params import Daemon, Whole, at_least

if TYPE_CHECKING:
    from creamas_sc.page.source import Sources

Port = Annotated[int, Parameter(metavar="PORT"), Whole, at_least(0, 65535)]


def page(
    source: str | None = None,
    /,
    *,
    host: Annotated[str, Parameter(metavar="ADDRESS")] = "127.0.0.1",
    port: Port = 0,
    read_only: bool = False,
    daemon: Daemon = None,
) -> int:
    """Show a simulation in a browser, while it runs or from its record.

    SOURCE is the name of a simulation, or a folder of records, or one file in
    it; by default the page shows all simulations of the daemon. The command
    prints a URL, which works once and for one browser, and serves the page
    until Ctrl-C; the simulation goes on.

    For example:

        creamas-supervisor page novelty
        creamas-supervisor page results/
        creamas-supervisor page --read-only --port 8000

    Args:
        host: The address to listen at. Default: 127.0.0.1, for this machine only.
        port: The port to listen at. Default: any free one.
        read_only: Show only: neither pause nor resume.
    """
    try:
        from creamas_sc.page import server
    except ModuleNotFoundError as error:
        text = f"the page needs {error.name}, which this Python lacks: {how_to_install('page')}"
        raise Failure(text) from error

    sources = _sources(source, daemon)

    def announce(url: str, tunnel: str) -> None:
        out(url)
        note("open this URL in a browser; it works once. Ctrl-C ends the page")
        if tunnel:
            note(f"from another machine, type this there first: {tunnel}")

    number = server.serve(sources, host=host, port=port, read_only=read_only, announce=announce)
    note("the page has ended")
    return Exit.TERMINATED if number == signal.SIGTERM else Exit.INTERRUPTED


def _sources(source: str | None, flag: str | None) -> Sources:
    """What the page shows.

    Raises:
        Failure: There is no such folder or simulation.
    """
    from creamas_sc.page.choosing import DaemonSources, OneSource
    from creamas_sc.page.live import LiveSource
    from creamas_sc.page.recorded import RecordSource
    from creamas_sc.results.recorded_runs import find_runs

    if source is not None and (Path(source).exists() or "/" in source):
        try:
            find_runs(source)
        except FileNotFoundError:
            raise Failure(f"there is no folder or file {source}") from None
        return OneSource(RecordSource(Path(source)))
    _, daemon = chosen_daemon(flag)
    try:
        with connected(flag) as (client, _):
            if source is not None:
                client.inspect(checked_name(source, "simulation"))
    except ConnectionLost as error:
        if source is None:
            raise
        there = f"there is no folder or file {source} here, and"
        raise Failure(f"{there} {error}", Exit.UNREACHABLE) from None
    if source is None:
        return DaemonSources(daemon)
    return OneSource(LiveSource(daemon, source), daemon)
