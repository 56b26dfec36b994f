"""Where daemons run: a record of each beside its log, for commands that do not find its socket.

The folder of sockets may be removed while a daemon lives, and it is another one where
XDG_RUNTIME_DIR differs. A record tells of a process by pid and start time, so that it never stands
for another one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from creamas_sc.runtime.log_files import make_log_folder
from creamas_sc.runtime.paths import daemon_socket, exposed, runtime_path
from supervisor.tree import linux, orphans

log = logging.getLogger(__name__)

SUFFIX = ".daemon"


class Record(NamedTuple):
    """A daemon that runs.

    Attributes:
        pid: Of its owner, which ends it in order after SIGTERM.
        runtime: $XDG_RUNTIME_DIR as it was started with; empty for none.
    """

    name: str
    pid: int
    started: int
    socket: Path
    runtime: str

    @property
    def runs(self) -> bool:
        """Whether this very process is there, and not waiting for its parent to reap it."""
        alive = linux.start_time(self.pid) == self.started
        return alive and linux.zombie_status(self.pid) is None

    @property
    def is_here(self) -> bool:
        """Whether clients of this process look for it where it listens."""
        return self.socket.parent == runtime_path()


@contextmanager
def recorded(folder: Path, name: str) -> Iterator[None]:
    """Keep a record of this process as the daemon of that name, until the block ends.

    Args:
        folder: That of the daemons' logs.
    """
    pid = os.getpid()
    path = folder / f"{name}.{pid}{SUFFIX}"
    try:
        content = {
            "name": name,
            "pid": pid,
            "started": linux.start_time(pid),
            "place": orphans.current_place(),
            "socket": str(daemon_socket(name)),
            "runtime": os.environ.get("XDG_RUNTIME_DIR", ""),
        }
        make_log_folder(folder)
        path.touch(mode=0o600)  # it says which process `stop` ends
        path.write_text(json.dumps(content))
    except OSError as error:
        log.warning("no record of this daemon: %s: %s", path, error.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def running(folder: Path, name: str) -> list[Record]:
    """The daemons of that name, wherever they listen; records of those that were killed go.

    None where other users may put files: a record says which process to end.
    """
    found: list[Record] = []
    if not folder.is_dir() or exposed(folder) is not None:
        return found
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            known = json.loads(path.read_bytes())
            if known.pop("place") != list(orphans.current_place()):
                continue  # another machine or container shares the folder
            record = Record(**{**known, "socket": Path(known["socket"])})
            if not record.runs:
                path.unlink()
            elif record.name == name:
                found.append(record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # gone, or not whole
            continue
    return found


def own_log(folder: Path, name: str) -> Path:
    """The log of a daemon that starts here: one of its own, whatever runs elsewhere."""
    if all(record.is_here for record in running(folder, name)):
        return folder / f"{name}.log"
    return _log_of_place(folder, name)


def last_log(folder: Path, name: str) -> Path:
    """The newest log that a daemon of that name has written, here rather than elsewhere."""
    found = (folder / f"{name}.log", _log_of_place(folder, name))
    return max(found, key=lambda path: path.stat().st_mtime if path.exists() else 0.0)


def _log_of_place(folder: Path, name: str) -> Path:
    place = os.fspath(runtime_path()).strip(os.sep).replace(os.sep, "-")
    return folder / f"{name}@{place}.log"


def running_here(folder: Path, name: str) -> Record | None:
    """The daemon of that name for clients of this process, even if its socket is gone."""
    return next((record for record in running(folder, name) if record.is_here), None)
