"""Connects the commands to the daemon that a flag or the settings name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from creamas_sc.errors import BadValue, CreamasError, StartError
from creamas_sc.runtime.paths import check_name, runtime_folder
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.settings import Settings, load_settings

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient


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

    Raises:
        Failure: The folder of sockets is not private to this user.
    """
    from creamas_sc.client import connect_sync

    settings, daemon = chosen_daemon(flag)
    try:
        runtime_folder()
    except CreamasError as error:
        raise Failure(str(error), Exit.DENIED) from error
    with connect_sync(daemon, timeout=settings.answer_timeout) as client:
        yield client, settings


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
