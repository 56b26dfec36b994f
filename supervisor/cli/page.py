"""The commands page and report: a simulation, or what one has recorded, in a browser."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from creamas_sc.errors import ConnectionLost
from creamas_sc.runtime.installation import how_to_install
from supervisor.cli.daemon_connection import checked_name, connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import emit, note, out, out_json
from supervisor.cli.params import Daemon, Json, Whole, at_least

if TYPE_CHECKING:
    from creamas_sc.page.source import Source, Sources

Port = Annotated[int, Parameter(metavar="PORT"), Whole, at_least(0, 65535)]


def page(
    source: str | None = None,
    /,
    *,
    host: Annotated[str, Parameter(metavar="ADDRESS")] = "127.0.0.1",
    port: Port = 0,
    read_only: bool = False,
    daemon: Daemon = None,
    json: Json = False,
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
        port: The port to listen at; a page that is started again there goes on in the same
            browser. Default: any free one.
        read_only: Show only: neither pause nor resume.
    """
    with _installed():
        from creamas_sc.page import server

    def announce(url: str, tunnel: str) -> None:
        if json:
            out_json({"url": url, "tunnel": tunnel})
        else:
            out(url)
        note("open this URL in a browser; it works once. Ctrl-C ends the page")
        if tunnel:
            note(f"from another machine, type this there first: {tunnel}")
        else:
            note("others may reach this address, and read what goes over it: it is not encrypted")

    with _sources(source, daemon) as sources:
        number = server.serve(sources, host=host, port=port, read_only=read_only, announce=announce)
    note("the page has ended")
    return Exit.TERMINATED if number == signal.SIGTERM else Exit.INTERRUPTED


def report(
    source: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="FILE")],
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Write the page as one file, with its data inside.

    SOURCE is as of page. The file needs nothing else: any browser shows it,
    and it loads nothing. It has the metrics of all runs, the last 24 runs'
    societies, and their newest and best artifacts, 600 at most.

    For example:

        creamas-supervisor report novelty -o report.html

    Args:
        output: The file to write, which ends with .html.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise Failure(f"--output {output} must end with .html", Exit.USAGE)
    with _installed():
        import anyio

        from creamas_sc.page.report import report as made
        from creamas_sc.page.source import PageError

    with _source(source, daemon) as chosen:
        try:
            text = anyio.run(made, chosen)
        except PageError as error:
            raise Failure(str(error)) from error
    output.write_text(text, encoding="utf-8")
    emit({"file": str(output), "bytes": output.stat().st_size}, json, lambda: [str(output)])
    return Exit.DONE


@contextmanager
def _installed() -> Iterator[None]:
    """Say how to install what the block imports, if that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        text = f"the page needs {package}, which this Python lacks: {how_to_install('page')}"
        raise Failure(text) from error


@contextmanager
def _sources(source: str | None, flag: str | None) -> Iterator[Sources]:
    """What the page shows.

    Raises:
        Failure: There is no such folder or simulation.
    """
    from creamas_sc.page.choosing import DaemonSources, OneSource

    if source is not None:
        with _source(source, flag) as one:
            yield OneSource(one)
        return
    with connected(flag) as (client, _):
        yield DaemonSources(client.daemon)


@contextmanager
def _source(source: str, flag: str | None) -> Iterator[Source]:
    """A folder or file of records, or a simulation.

    Raises:
        Failure: There is none.
    """
    from creamas_sc.page.live import LiveSource
    from creamas_sc.page.recorded import RecordSource

    if Path(source).exists() or "/" in source:
        try:
            record = RecordSource.open(Path(source))
        except FileNotFoundError:
            raise Failure(f"there is no folder or file {source}") from None
        yield record
        return
    name = checked_name(source, "simulation")
    # It stays connected, as what leads to the daemon may hold for the block only.
    with ExitStack() as until_end:
        try:
            client, _ = until_end.enter_context(connected(flag))
            client.inspect(name)
        except ConnectionLost as error:
            there = f"there is no folder or file {source} here, and"
            raise Failure(f"{there} {error}", Exit.UNREACHABLE) from None
        yield LiveSource(client.daemon, name)
