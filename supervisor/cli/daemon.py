"""Verbs of the daemon itself: run, start, stop, status."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from creamas_sc.errors import ConnectionLost, CreamasError, DeadlineExceeded
from creamas_sc.runtime.paths import DEFAULT_DAEMON, daemon_socket
from supervisor.cli.daemon_connection import chosen_daemon, in_time, linked, patience
from supervisor.cli.endings import endings, endings_as_data, judge
from supervisor.cli.exits import Exit, Failure, explain
from supervisor.cli.output import emit, flush, moment, note, out_json, pairs
from supervisor.cli.params import Daemon, Json, Seconds

__all__ = ["run", "start", "status", "stop"]

# After its answer to `stop` the daemon has nothing left to do but to end.
GONE_SECONDS = 10.0
LOOK_SECONDS = 0.02


def run(*, daemon: Daemon = None, json: Json = False) -> int:
    """Run the daemon in the foreground.

    It prints the path of its socket when it is ready, and logs on standard
    error and into its log file. Ctrl-C or SIGTERM closes all simulations
    gracefully; a second one kills them.

    For example:

        creamas-supervisor run
        creamas-supervisor run --daemon experiments 2> experiments.log
    """
    from supervisor.daemon.process import Settings, run

    settings, name = chosen_daemon(daemon)

    def announce(path: Path) -> None:
        _tell_socket(name, path, json)
        flush()

    return run(Settings(name, settings.logs(), console=True), announce)


def start(
    *,
    daemon: Daemon = None,
    timeout: Annotated[
        Seconds, Parameter(help="Seconds until it must be ready; else start_timeout, 15.")
    ] = None,
    json: Json = False,
) -> int:
    """Start the daemon in the background.

    Returns when it is ready, and prints the path of its socket.

    For example:

        creamas-supervisor start
        creamas-supervisor start --daemon experiments
    """
    from supervisor.daemon.process import Settings, start

    settings, name = chosen_daemon(daemon)
    seconds = settings.start_timeout if timeout is None else timeout
    with in_time(time.monotonic() + seconds):
        path = start(Settings(name, settings.logs(), console=False), seconds)
    _tell_socket(name, path, json)
    return Exit.DONE


def _tell_socket(name: str, path: Path, json: bool) -> None:
    emit({"daemon": name, "socket": str(path)}, json, lambda: [str(path)])


def stop(
    *,
    daemon: Daemon = None,
    timeout: Annotated[
        Seconds,
        Parameter(help="Seconds to save and close gracefully in; else close_timeout, 1."),
    ] = None,
    json: Json = False,
) -> int:
    """Close all simulations and end the daemon.

    Returns when nothing of it is left, and prints how each slave ended. It
    fails (exit code 1) if one had to be killed, or if saving raised an error.

    For example:

        creamas-supervisor stop
        creamas-supervisor stop --timeout 60     # agents have much to save
    """
    settings, name = chosen_daemon(daemon)
    grace = settings.close_timeout if timeout is None else timeout
    with linked(daemon) as (client, _), patience(client, grace):
        closed = [(told["name"], told["receipt"]) for told in client.stop(timeout=grace)]
    data = [endings_as_data(*each) for each in closed]
    emit(data, json, lambda: [line for each in closed for line in endings(*each)])
    codes = [judge(receipt) for _, receipt in closed]
    deadline = time.monotonic() + GONE_SECONDS
    while _lock_is_held(name):
        if time.monotonic() > deadline:
            raise Failure(f"the daemon {name!r} has not ended within {GONE_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
    return max(codes, default=Exit.DONE)


def status(*, daemon: Daemon = None, json: Json = False) -> int:
    """Tell whether the daemon runs.

    Exit code 0: it runs; 3: it does not; 4: it does not answer, or there is
    no telling.

    For example:

        creamas-supervisor status || creamas-supervisor start
    """
    _, name = chosen_daemon(daemon)
    try:
        with linked(daemon) as (client, _):
            told = client.status()
    except (CreamasError, Failure) as error:
        code = _absence(name, error)
        if json:
            state = "not running" if code is Exit.NOT_RUNNING else "unknown"
            out_json({"name": name, "state": state}, indent=2)
        return code
    told = {"name": name, "state": "running", **told}
    emit(told, json, lambda: pairs({**told, "since": moment(told.get("since"))}))
    return Exit.DONE


def _absence(name: str, error: Exception) -> Exit:
    """Tell why a daemon does not answer."""
    if isinstance(error, ConnectionLost) and not _listens(name) and not _lock_is_held(name):
        flag = "" if name == DEFAULT_DAEMON else f" --daemon {name}"
        note(f"the daemon {name!r} does not run; creamas-supervisor start{flag} starts it")
        return Exit.NOT_RUNNING
    seen = isinstance(error, (ConnectionLost, DeadlineExceeded))
    known = "is there but does not answer" if seen else "may run or not"
    note(f"the daemon {name!r} {known}: {explain(error)[1]}")
    return Exit.UNKNOWN


def _listens(name: str) -> bool:
    """Whether anything at all takes connections at the daemon's socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(os.fspath(daemon_socket(name)))
        except OSError as error:
            return error.errno == errno.EAGAIN  # its queue is full
    return True


def _lock_is_held(name: str) -> bool:
    """Whether any process of the daemon's still lives: they all hold its lock."""
    try:
        descriptor = os.open(daemon_socket(name).with_suffix(".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
