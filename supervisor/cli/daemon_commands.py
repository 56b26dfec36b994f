"""Commands for the daemon itself: run, start, stop, status."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from creamas_sc.errors import ConnectionLost, CreamasError, DeadlineExceeded
from creamas_sc.runtime.paths import daemon_socket
from supervisor.cli import output
from supervisor.cli.daemon_connection import (
    POLL_SECONDS,
    chosen_daemon,
    connected,
    extra_time,
    start_deadline,
)
from supervisor.cli.exits import Exit, Failure, explain
from supervisor.cli.params import Daemon, Json, Seconds, address
from supervisor.cli.settings import Settings
from supervisor.daemon.lock import is_held, listens
from supervisor.daemon.records import Record, running_here
from supervisor.timeouts import CLOSE_SECONDS

if TYPE_CHECKING:
    from supervisor.daemon.process import Places
    from supervisor.daemon.process import Settings as DaemonSettings

# For the daemon to exit after its answer to `stop`, when everything is closed.
EXIT_SECONDS = 10.0


Listen = Annotated[str | None, Parameter(metavar="HOST:PORT")]
KeyFile = Annotated[Path | None, Parameter(metavar="FILE")]


def run(
    *,
    listen: Listen = None,
    node_key: KeyFile = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Run the daemon in the foreground.

    It says where its socket is when it is ready, and logs to standard error
    and to its log file. Ctrl-C or SIGTERM closes all simulations
    gracefully; a second one kills them.

    For example:

        creamas-supervisor run
        creamas-supervisor run --daemon experiments 2> experiments.log

    Args:
        listen: Let other machines join here, as nodes for slaves; port 0 is any
            free one.
        node_key: The key that nodes need, made if there is none. Default: a
            file beside the daemon's log.
    """
    from supervisor.daemon.process import run

    settings, name = chosen_daemon(daemon)
    announce = partial(_print_running, name, json)
    return run(_daemon_settings(settings, name, True, listen, node_key), announce)


def start(
    *,
    listen: Listen = None,
    node_key: KeyFile = None,
    daemon: Daemon = None,
    timeout: Seconds = None,
    json: Json = False,
) -> int:
    """Start the daemon in the background.

    The command returns when the daemon is ready, and says where its socket
    is.

    For example:

        creamas-supervisor start
        creamas-supervisor start --daemon experiments
        creamas-supervisor start --listen 0.0.0.0:0     # for other machines

    Args:
        listen: Let other machines join here, as nodes for slaves; port 0 is any
            free one.
        node_key: The key that nodes need, made if there is none. Default: a
            file beside the daemon's log.
        timeout: Seconds until it must be ready. Default: start_timeout, 15.
    """
    from supervisor.daemon.process import start

    settings, name = chosen_daemon(daemon)
    seconds = settings.start_timeout if timeout is None else timeout
    with start_deadline(time.monotonic() + seconds):
        places = start(_daemon_settings(settings, name, False, listen, node_key), seconds)
    _print_running(name, json, places)
    return Exit.DONE


def _daemon_settings(
    settings: Settings, name: str, console: bool, listen: str | None, node_key: Path | None
) -> DaemonSettings:
    from supervisor.daemon.process import Settings as DaemonSettings

    if node_key is not None and listen is None:
        raise Failure("--node-key is for nodes: it needs --listen HOST:PORT", Exit.USAGE)
    place = None if listen is None else address(listen, "--listen")
    return DaemonSettings(name, settings.logs(), console, place, node_key)


def _print_running(name: str, json: bool, places: Places) -> None:
    lines = [f"the daemon {name!r} is running and listens at {places.socket}"]
    data: dict[str, object] = {"daemon": name, "socket": str(places.socket)}
    if places.nodes is not None:
        host, port = places.nodes
        data["nodes"] = [host, port]
        lines.append(f"it listens for nodes at {host}:{port}; creamas-supervisor nodes says more")
    output.emit(data, json, lambda: lines)


def _ended(name: str) -> str:
    return f"the daemon {name!r} has ended"


def stop(*, daemon: Daemon = None, timeout: Seconds = None, json: Json = False) -> int:
    """Close all simulations and end the daemon.

    The command returns when no process of the daemon is left, and prints how
    each slave ended. It fails (exit code 1) if one had to be killed, or if
    saving raised an error.

    For example:

        creamas-supervisor stop
        creamas-supervisor stop --timeout 60     # agents have much to save

    Args:
        timeout: Seconds to save and close gracefully. Default: close_timeout, 1.
    """
    settings, name = chosen_daemon(daemon)
    grace = settings.close_timeout if timeout is None else timeout
    try:
        with connected(daemon) as (client, _), extra_time(client, grace):
            path = client.socket
            ends = [(end["name"], end["report"]) for end in client.stop(timeout=grace)]
    except (ConnectionLost, Failure) as error:
        record = running_here(settings.logs(), name)
        if record is None or listens(record.socket):
            raise
        output.note(f"{error}; sending SIGTERM to pid {record.pid}")
        return _stop_by_signal(record, json)
    codes = [output.judge(report) for _, report in ends]
    give_up_at = time.monotonic() + EXIT_SECONDS
    while (held := is_held(path)) and time.monotonic() < give_up_at:
        time.sleep(POLL_SECONDS)
    data = [output.report_data(*end) for end in ends]
    lines = [line for end in ends for line in output.report_lines(*end)]
    output.emit(data, json, lambda: lines if held else [*lines, _ended(name)])
    if held:
        raise Failure(f"the daemon {name!r} has not ended after {EXIT_SECONDS:g} s")
    return max(codes, default=Exit.DONE)


def _stop_by_signal(record: Record, json: bool) -> int:
    """End a daemon at which nobody can call: it closes its simulations as after `stop`."""
    give_up_at = time.monotonic() + CLOSE_SECONDS + EXIT_SECONDS
    if record.runs:
        os.kill(record.pid, signal.SIGTERM)
    while record.runs:
        if time.monotonic() > give_up_at:
            raise Failure(f"the daemon {record.name!r} (pid {record.pid}) has not ended")
        time.sleep(POLL_SECONDS)
    output.emit([], json, lambda: [_ended(record.name)])
    return Exit.DONE


def status(*, daemon: Daemon = None, json: Json = False) -> int:
    """Show whether the daemon is running.

    Exit code 0: it is running; 3: it is not; 4: it does not answer, or its
    state cannot be determined.

    For example:

        creamas-supervisor status || creamas-supervisor start
    """
    settings, name = chosen_daemon(daemon)
    try:
        with connected(daemon) as (client, _):
            found = client.status()
    except (CreamasError, Failure) as error:
        code = _explain_absence(name, error, running_here(settings.logs(), name))
        if json:
            state = "not running" if code is Exit.NOT_RUNNING else "unknown"
            output.out_json({"name": name, "state": state}, indent=2)
        return code
    others = max(0, found["clients"] - 1)  # than this command
    found = {"name": name, "state": "running", **found, "clients": others}
    since = output.moment(found.get("since"))
    output.emit(found, json, lambda: output.pairs({**found, "since": since}))
    return Exit.DONE


def _explain_absence(name: str, error: Exception, record: Record | None) -> Exit:
    """Say why a daemon does not answer."""
    why = explain(error)[1]
    lost = isinstance(error, ConnectionLost) and record is None
    if lost and not listens(daemon_socket(name)) and not is_held(daemon_socket(name)):
        output.note(why)  # with how to start it
        return Exit.NOT_RUNNING
    silent = record is not None or isinstance(error, (ConnectionLost, DeadlineExceeded))
    known = "is running but does not answer" if silent else "may be running"
    output.note(f"the daemon {name!r} {known}: {why}")
    return Exit.UNKNOWN
