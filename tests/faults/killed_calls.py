"""Ends a process in the middle of its n-th call to the disk, as an environment variable asks."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

VARIABLE = "CREAMAS_TEST_KILLED_CALL"
# What is counted, beside the statements of databases.
_OF_OS = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")


@dataclass(frozen=True)
class KilledCall:
    """When a process ends.

    Attributes:
        process: What its name begins with: "script", "host" or "slave".
        number: Of the call, from 1 on.
        how: "before" it, "after" it, "torn": before it, and half of the file that it syncs is
            lost; or so many microseconds after it has begun.
    """

    process: str
    number: int
    how: str

    def variable(self) -> dict[str, str]:
        """The environment variable that asks for it."""
        return {VARIABLE: json.dumps(asdict(self))}


def arm() -> None:
    """Do what the variable asks for, if it is for this process."""
    asked = os.environ.get(VARIABLE)
    if not asked:
        return
    killed = KilledCall(**json.loads(asked))
    name = Path("/proc/self/comm").read_text().strip()
    role = next((each for each in ("host", "slave") if name.startswith(each)), "script")
    if role == killed.process:
        _Counter(killed).watch()


class _Counter:
    def __init__(self, killed: KilledCall) -> None:
        self._killed, self._count = killed, 0

    def watch(self) -> None:
        for name in _OF_OS:
            setattr(os, name, self._watched(getattr(os, name)))
        watched = self._watched

        class Connection(sqlite3.Connection):
            execute = watched(sqlite3.Connection.execute)
            executemany = watched(sqlite3.Connection.executemany)

        sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._count += 1
            if self._count != self._killed.number:
                return function(*args, **kwargs)
            how = self._killed.how
            if how == "torn":
                _tear(args[0])
            if how in ("before", "torn"):
                os.kill(os.getpid(), signal.SIGKILL)
            if how != "after":  # the alarm's default is to end the process, whatever it does
                signal.setitimer(signal.ITIMER_REAL, int(how) / 1e6)
            result = function(*args, **kwargs)
            if how == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


def _tear(file: Any) -> None:
    """Lose half of a file that is open for writing."""
    if isinstance(file, int) and stat.S_ISREG(os.fstat(file).st_mode):
        try:
            os.ftruncate(file, os.fstat(file).st_size // 2)
        except OSError:  # it is open for reading
            return
