"""Verbs that list, show and end simulations: ls, inspect, close, kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from supervisor.cli.daemon_connection import linked, patience
from supervisor.cli.endings import endings, endings_as_data, judge
from supervisor.cli.exits import Exit
from supervisor.cli.output import emit, moment, note, pairs, table
from supervisor.cli.params import Daemon, Json, Name, Seconds

__all__ = ["close", "inspect", "kill", "ls"]

LS_HEAD = ("NAME", "STATE", "STEPS", "AGENTS", "SLAVES", "CLIENTS", "PID", "SINCE")


def ls(
    *,
    all: Annotated[bool, Parameter(help="The last ones that ended, too, and why.")] = False,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """List the simulations.

    For example:

        creamas-supervisor ls
        creamas-supervisor ls --all --json
    """
    with linked(daemon) as (client, _):
        summaries = client.ls(all=all)
    if not summaries and not json:
        note("there are no simulations; creamas-supervisor create NAME makes one")
        return Exit.DONE
    head = (*LS_HEAD, "CAUSE") if all else LS_HEAD
    emit(summaries, json, lambda: table(head, [_row(told, all) for told in summaries]))
    return Exit.DONE


def _row(told: Mapping[str, Any], with_cause: bool) -> list[object]:
    host = told["host"] or {}
    progress = host.get("progress", host)
    row = [
        told["name"],
        told["state"],
        _steps(progress),
        *(progress.get(key) for key in ("agents", "slaves", "clients")),
        told["pid"],
        moment(told["since"]),
    ]
    return [*row, told["cause"]] if with_cause else row


def _steps(progress: Mapping[str, Any]) -> str:
    if "state" not in progress:
        return "-"
    of = progress.get("of")
    count = f" {progress.get('step')}" + ("" if of is None else f"/{of}")
    return f"{progress['state']}{'' if progress['state'] == 'idle' and not of else count}"


def inspect(name: Name, /, *, daemon: Daemon = None, json: Json = False) -> int:
    """Show all that is known of a simulation.

    For example:

        creamas-supervisor inspect novelty
        creamas-supervisor inspect novelty --json | jq .processes
    """
    with linked(daemon) as (client, _):
        told = client.inspect(name)
    emit(told, json, lambda: _description(told))
    return Exit.DONE


def _description(told: Mapping[str, Any]) -> list[str]:
    lines = pairs({key: told.get(key) for key in ("name", "state", "cause", "pid")})
    lines += pairs({"since": moment(told.get("since")), "cwd": told.get("cwd")})
    for title in ("host", "about"):
        lines += _section(title, pairs(_flat(told.get(title) or {})))
    processes = told.get("processes") or ()
    rows = [[each.get("slot"), each.get("pid"), each.get("name")] for each in processes]
    lines += _section("processes", table(("SLOT", "PID", "NAME"), rows) if rows else [])
    return lines + _section("path", list(told.get("path") or ()))


def _flat(values: Mapping[str, Any]) -> dict[str, object]:
    """Nested mappings with dotted names."""
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
    folder: Annotated[
        Path | None, Parameter(metavar="DIR", help="Where save_info and agents' close get to save.")
    ] = None,
    timeout: Annotated[
        Seconds, Parameter(help="Seconds to save and close gracefully in; else close_timeout, 1.")
    ] = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """End a simulation gracefully, for everybody.

    Prints how each slave ended. It fails (exit code 1) if one had to be
    killed, or if saving raised an error.

    For example:

        creamas-supervisor close novelty
        creamas-supervisor close novelty --folder results --timeout 60
    """
    with linked(daemon) as (client, settings):
        grace = settings.close_timeout if timeout is None else timeout
        where = None if folder is None else str(folder.absolute())
        with patience(client, grace):
            receipt = client.close(name, folder=where, timeout=grace)
    emit(endings_as_data(name, receipt), json, lambda: endings(name, receipt))
    return judge(receipt)


def kill(name: Name, /, *, daemon: Daemon = None, json: Json = False) -> int:
    """End a simulation at once; nothing is saved.

    For example:

        creamas-supervisor kill novelty
    """
    with linked(daemon) as (client, _):
        receipts = client.kill(name)
    emit(receipts, json, lambda: [f"{name} was killed"])
    return Exit.DONE
