"""Connects the commands to the daemon that a flag or the settings name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from creamas_sc.errors import BadValue, ConnectionLost, CreamasError, StartError
from creamas_sc.runtime.paths import check_name, daemon_socket, runtime_folder
from creamas_sc.runtime.timeouts import LOOK_SECONDS
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import note
from supervisor.cli.settings import Settings, load_settings
from supervisor.daemon.lock import listens
from supervisor.daemon.records import Record, running

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient

POLL_SECONDS = 0.02


def chosen_daemon(flag: str | None) -> tuple[Settings, str]:
    """Return the user's settings, and the daemon that the flag or the settings name.

    Raises:
        Failure: The name or a setting is not valid.
    """
    settings = load_settings()
    return settings, settings.daemon if flag is None else checked_name(flag, "daemon")


def checked_name(name: str, what: str) -> str:
    """Return a name from the command line, which will be part of a path.

    Raises:
        Failure: It is not a valid name.
    """
    try:
        return check_name(name, what)
    except BadValue as error:
        raise Failure(str(error), Exit.USAGE) from error


@contextmanager
def connected(flag: str | None) -> Iterator[tuple[SyncClient, Settings]]:
    """Connect to the daemon that the flag or the settings name, until the block ends.

    One that has lost its socket is waited for, as it makes another; without XDG_RUNTIME_DIR the
    daemon of that name is found wherever it runs.

    Raises:
        Failure: The folder of sockets is not private to this user.
    """
    settings, daemon = chosen_daemon(flag)
    try:
        runtime_folder()
    except CreamasError as error:
        raise Failure(str(error), Exit.DENIED) from error
    with ExitStack() as until_end:
        yield until_end.enter_context(_reached(daemon, settings, until_end)), settings


def _reached(daemon: str, settings: Settings, until_end: ExitStack) -> SyncClient:
    from creamas_sc.client import connect_sync

    try:
        return connect_sync(daemon, timeout=settings.answer_timeout)
    except ConnectionLost as error:
        if listens(daemon_socket(daemon)):
            raise  # it does not answer
        found = running(settings.logs(), daemon)
        here = next((record for record in found if record.is_here), None)
        if here is not None:
            _wait_until_it_listens(here, error)
        elif len(found) == 1 and found[0].runtime and not os.environ.get("XDG_RUNTIME_DIR"):
            runtime = found[0].runtime
            note(f"XDG_RUNTIME_DIR is not set: taking {runtime}, where {daemon!r} was started")
            until_end.enter_context(_runtime(runtime))
        elif found:
            raise _elsewhere(found, error) from None
        else:
            raise
    return connect_sync(daemon, timeout=settings.answer_timeout)


def _wait_until_it_listens(record: Record, error: ConnectionLost) -> None:
    """Wait for a daemon without a socket: it is starting, ending, or about to make it again."""
    give_up_at = time.monotonic() + LOOK_SECONDS + 1
    while not listens(record.socket):
        if not record.runs:
            raise error
        if time.monotonic() > give_up_at:
            text = (
                f"the daemon {record.name!r} (pid {record.pid}) is running, but nothing listens at "
                f"{record.socket}: its log may say why, and `creamas-supervisor stop` ends it"
            )
            raise ConnectionLost(text, address=str(record.socket), may_have_run=False)
        time.sleep(POLL_SECONDS)


def _elsewhere(found: Sequence[Record], error: ConnectionLost) -> ConnectionLost:
    where = "; ".join(
        f"pid {each.pid} listens at {each.socket}"
        + (f" (XDG_RUNTIME_DIR={each.runtime})" if each.runtime else " (without XDG_RUNTIME_DIR)")
        for each in found
    )
    text = f"{error}, or set XDG_RUNTIME_DIR as for the daemon of that name that runs: {where}"
    return ConnectionLost(text, address=error.address, may_have_run=False)


@contextmanager
def _runtime(folder: str) -> Iterator[None]:
    os.environ["XDG_RUNTIME_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["XDG_RUNTIME_DIR"]


@contextmanager
def extra_time(client: SyncClient, seconds: float) -> Iterator[None]:
    """Allow the calls in the block that much more time than a plain answer takes."""
    usual = client.timeout
    client.timeout = None if usual is None else usual + seconds
    try:
        yield
    finally:
        client.timeout = usual


@contextmanager
def start_deadline(deadline: float) -> Iterator[None]:
    """Exit with 75 rather than 1 if a start in the block fails after the deadline."""
    try:
        yield
    except StartError as error:
        code = Exit.FAILED if time.monotonic() < deadline else Exit.TIMED_OUT
        raise Failure(" ".join(str(error).split()), code) from error
