"""The way to a daemon, for all verbs."""

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

__all__ = ["checked_name", "chosen_daemon", "connect", "in_time", "linked", "patience"]


def connect(daemon: str, timeout: float | None) -> SyncClient:
    """A client of the daemon of that name; tests put another in its place."""
    from creamas_sc.client import connect_sync

    return connect_sync(daemon, timeout=timeout)


def chosen_daemon(flag: str | None) -> tuple[Settings, str]:
    """The user's settings, and the daemon that a flag or they name.

    Raises:
        Failure: It is no name, or the settings will not do.
    """
    settings = load_settings()
    if flag is None:
        return settings, settings.daemon
    return settings, checked_name(flag, "daemon")


def checked_name(name: str, what: str) -> str:
    """A name from the command line, which will be part of a path.

    Raises:
        Failure: It is none.
    """
    try:
        return check_name(name, what)
    except BadValue as error:
        raise Failure(str(error), Exit.USAGE) from error


def connected(daemon: str, timeout: float) -> SyncClient:
    """As `connect`.

    Raises:
        Failure: The folder of sockets is not this user's.
    """
    try:
        runtime_folder()
    except CreamasError as error:
        raise Failure(str(error), Exit.DENIED) from error
    return connect(daemon, timeout)


@contextmanager
def linked(flag: str | None) -> Iterator[tuple[SyncClient, Settings]]:
    """A client of the daemon that a flag or the settings name, until the block ends."""
    settings, daemon = chosen_daemon(flag)
    client = connected(daemon, settings.answer_timeout)
    try:
        yield client, settings
    finally:
        client.disconnect()


@contextmanager
def patience(client: SyncClient, seconds: float) -> Iterator[None]:
    """Allow the calls of the block that much more than an answer takes."""
    usual = client.timeout
    client.timeout = None if usual is None else usual + seconds
    try:
        yield
    finally:
        client.timeout = usual


@contextmanager
def in_time(deadline: float) -> Iterator[None]:
    """Tell a start that failed for want of time from one that failed."""
    try:
        yield
    except StartError as error:
        code = Exit.FAILED if time.monotonic() < deadline else Exit.TIMED_OUT
        raise Failure(" ".join(str(error).split()), code) from error
