"""Commands that list, show and end simulations: ls, inspect, close, kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from supervisor.cli import output
from supervisor.cli.daemon_connection import connected, extra_time
from supervisor.cli.exits import Exit
from supervisor.cli.params import Daemon, Json, Name, Seconds

LS_HEAD = ("NAME", "STATE", "STEPS", "AGENTS", "SLAVES", "CLIENTS", "PID", "SINCE")


def ls(*, all: bool = False, daemon: Daemon = None, json: Json = False) -> int:
    """List the simulations.

    For example:

        creamas-supervisor ls
        creamas-supervisor ls --all --json

    Args:
        all: Include simulations that ended recently, and why they ended.
    """
    with connected(daemon) as (client, _):
        summaries = client.ls(all=all)
    if not summaries and not json:
        output.note("there are no simulations; create one with creamas-supervisor create NAME")
        return Exit.DONE
    head = (*LS_HEAD, "CAUSE") if all else LS_HEAD
    rows = [_row(summary, all) for summary in summaries]
    output.emit(summaries, json, lambda: output.table(head, rows))
    return Exit.DONE


def _row(summary: Mapping[str, Any], with_cause: bool) -> list[object]:
    progress = summary["host"] or {}
    steps, of = progress.get("state"), progress.get("of")
    if progress.get("pausing"):
        steps = "pausing"
    if of is not None:
        steps = f"{steps} {progress['step']}/{of}"
    elif steps is not None and steps != "idle":
        steps = f"{steps} {progress['step']}"
    row = [
        summary["name"],
        summary["state"],
        steps,
        *(progress.get(key) for key in ("agents", "slaves", "clients")),
        summary["pid"],
        output.moment_in_short(summary["since"]),
    ]
    return [*row, summary["cause"]] if with_cause else row


def inspect(
    name: Name, /, *, environ: bool = False, daemon: Daemon = None, json: Json = False
) -> int:
    """Show all that is known of a simulation.

    For example:

        creamas-supervisor inspect novelty
        creamas-supervisor inspect novelty --json | jq .processes

    Args:
        environ: Show the values of its environment variables, which may hold secrets.
    """
    with connected(daemon) as (client, _):
        details = client.inspect(name, environ=environ)
    output.emit(details, json, lambda: _description(details))
    return Exit.DONE


def _description(details: Mapping[str, Any]) -> list[str]:
    since = {"since": output.moment(details.get("since"))}
    keys = ("name", "state", "cause", "pid", "since", "cwd")
    lines = output.pairs({key: details.get(key) for key in keys} | since)
    host = dict(details.get("host") or {})
    host.pop("pids", None)
    addresses = dict(zip(host.pop("slots", ()), host.pop("addrs", ()), strict=False))
    for title, values in (("host", host), ("about", details.get("about") or {})):
        lines += _section(title, output.pairs(_flat(values)))
    processes = details.get("processes") or ()
    head = ["SLOT", "PID", "ADDRESS", "NAME"]
    rows = [
        [each.get("slot"), each.get("pid"), addresses.get(each.get("slot")), each.get("name")]
        for each in processes
    ]
    if any(each.get("node") for each in processes):
        head.append("NODE")
        rows = [[*row, each.get("node")] for row, each in zip(rows, processes, strict=True)]
    lines += _section("processes", output.table(head, rows, indent=2) if rows else [])
    lines += _section("path", list(details.get("path") or ()))
    environ = details.get("environ") or ()  # names only, which say little, unless asked for
    return lines + _section("environ", output.pairs(environ) if isinstance(environ, dict) else ())


def _flat(values: Mapping[str, Any]) -> dict[str, object]:
    """Flatten nested mappings, with dotted names."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": v for inner, v in _flat(value).items()})
        else:
            flat[str(key)] = value
    return flat


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def close(
    name: Name,
    /,
    *,
    folder: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    timeout: Seconds = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """End a simulation gracefully, for all its clients.

    The command prints how each slave ended. It fails (exit code 1) if one
    had to be killed, or if saving raised an error.

    For example:

        creamas-supervisor close novelty
        creamas-supervisor close novelty --folder results --timeout 60

    Args:
        folder: Passed to save_info and to the agents' close, to save into.
        timeout: Seconds to save and close gracefully. Default: close_timeout, 1.
    """
    with connected(daemon) as (client, settings):
        grace = settings.close_timeout if timeout is None else timeout
        where = None if folder is None else str(folder.absolute())
        with extra_time(client, grace):
            report = client.close(name, folder=where, timeout=grace)
    code = output.judge(report)
    output.emit(output.report_data(name, report), json, lambda: output.report_lines(name, report))
    return code


def kill(name: Name, /, *, daemon: Daemon = None, json: Json = False) -> int:
    """End a simulation at once, without saving.

    For example:

        creamas-supervisor kill novelty
    """
    with connected(daemon) as (client, _):
        ends = client.kill(name)
    output.emit(ends, json, lambda: [f"{name} was killed"])
    return Exit.DONE
