"""Commands that read what simulations have recorded: export, plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from supervisor.cli import output
from supervisor.cli.daemon_connection import checked_name, connected
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.params import Daemon, Json

if TYPE_CHECKING:
    from creamas_sc.results import Results

Tables = Literal["runs", "steps", "metrics", "agents", "artifacts", "connections", "events"]
Run = Annotated[list[str] | None, Parameter(metavar="RUN")]


def export(
    source: str,
    file: Path,
    /,
    *,
    table: Annotated[Tables, Parameter(metavar="TABLE")] = "agents",
    run: Run = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Write a recorded table to a Parquet or CSV file.

    SOURCE is the name of a simulation that was created with --record, or a
    folder of records, or one file in it; it may still run. FILE ends with
    .parquet or .csv.

    For example:

        creamas-supervisor export novelty agents.parquet
        creamas-supervisor export results/ metrics.csv --table metrics

    Args:
        table: runs, steps, metrics, agents, artifacts, connections or events. Default: agents.
        run: Only this run, "run-2" say; give it once for each.
    """
    found: Any = getattr(_results(source, run, daemon), table)
    found.write(file)
    data = {"file": str(file), "table": table, "rows": found.num_rows}
    output.emit(data, json, lambda: [f"{file}: {output.count(found.num_rows, 'row')} of {table}"])
    return Exit.DONE


def plot(
    source: str,
    metric: str,
    file: Path,
    /,
    *,
    by: Annotated[str | None, Parameter(metavar="PARAMETER")] = None,
    run: Run = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Plot a recorded metric over the steps.

    SOURCE is as of export. METRIC is one of the whole, or what agents return
    by that name: then the mean over the agents. FILE ends with .png, .pdf or
    .svg.

    For example:

        creamas-supervisor plot novelty novelty novelty.png
        creamas-supervisor plot results/ novelty novelty.pdf --by alpha

    Args:
        by: A parameter: runs with the same value are one line, their mean, with a band of one
            standard deviation. Default: a line for each run.
        run: Only this run, "run-2" say; give it once for each.
    """
    axes = _results(source, run, daemon).plot(metric, by=by)
    try:
        axes.figure.savefig(file)
    except ValueError as error:  # an ending that matplotlib does not know
        raise Failure(f"{file}: {error}", Exit.USAGE) from None
    output.emit({"file": str(file), "lines": len(axes.lines)}, json, lambda: [str(file)])
    return Exit.DONE


def _results(source: str, runs: list[str] | None, daemon: str | None) -> Results:
    """Open the record of a simulation, or a folder or file.

    Raises:
        Failure: There is none.
    """
    from creamas_sc import results  # here, as most commands need none of it
    from creamas_sc.errors import ConnectionLost

    path: str | None = source
    if not Path(source).exists():
        if "/" in source:
            raise Failure(f"there is no folder or file {source}")
        name = checked_name(source, "simulation")
        try:
            with connected(daemon) as (client, _):
                details = client.inspect(name)
        except ConnectionLost as error:
            there = f"there is no folder or file {source} here, and"
            raise Failure(f"{there} {error}", Exit.UNREACHABLE) from None
        host, about = details.get("host") or {}, details.get("about") or {}
        path = host.get("record") or about.get("record")
        if path is None:
            raise Failure(f"{name} is not recorded: create it with --record DIR")
    opened = results.open(str(path))
    return opened if runs is None else opened.filter(run=runs)
