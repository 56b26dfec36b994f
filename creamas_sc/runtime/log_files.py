"""A log in files of a limited size, written by several processes at once.

    NAME.log --full--> NAME.log.1 --> ... --> NAME.log.4 --> removed; the next file's first line
                                                             says how many bytes

Who writes and finds the file full moves it on and begins another. All others notice before they
write much more that theirs is no longer the file of that name, and go on in the new one. Programs
that agents have started cannot: they write into the file that they began with until it is removed,
and what they write later is lost.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from creamas_sc.runtime.paths import exposed, make_private

# A log takes 160 MiB at most, but for what programs of agents write into older files.
FILE_BYTES = 32 << 20
KEPT_FILES = 4
# A line with this key is the first one of the simulation that it names.
BEGINS = "begins"
STDERR = 2


def open_log_file(file: str) -> int:
    """Open a log for appending; created with its folder, for this user only.

    Raises:
        OSError: It cannot be opened, or other users may put files there.
    """
    make_log_folder(Path(file).parent)
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def make_log_folder(folder: Path) -> None:
    """Make a folder for logs, for this user only, if there is none.

    Raises:
        OSError: It cannot be made; or other users may put files there, as links to this user's.
    """
    make_private(folder)
    if (place := exposed(folder)) is not None:
        why = f"other users may write to {place}: choose another folder with CREAMAS_LOG_FOLDER"
        raise PermissionError(errno.EPERM, why, str(folder))


def log_files(path: Path) -> list[Path]:
    """The files of a log that there are, the oldest first."""
    older = [_older(path, number) for number in range(KEPT_FILES, 0, -1)]
    return [each for each in [*older, path] if each.exists()]


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def keep_to_limit(descriptor: int, path: str) -> None:
    """Have ``descriptor`` lead to a file of the log at ``path`` that is not full.

    Raises:
        OSError: It goes on with the file that it has.
    """
    have = os.fstat(descriptor)
    try:
        there = os.stat(path)
    except FileNotFoundError:
        there = None
    if there is not None and (have.st_ino, have.st_dev) == (there.st_ino, there.st_dev):
        if have.st_size < FILE_BYTES or not _move_on(descriptor, Path(path)):
            return
    new = open_log_file(path)
    try:
        os.dup2(new, descriptor, inheritable=descriptor <= STDERR)
    finally:
        os.close(new)


def _move_on(descriptor: int, path: Path) -> bool:
    """Move a full file on, unless another process is about to; whether it was moved."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            return True
        oldest = _older(path, KEPT_FILES)
        lost = oldest.stat().st_size if oldest.exists() else 0
        for number in range(KEPT_FILES - 1, 0, -1):
            with suppress(FileNotFoundError):
                _older(path, number).rename(_older(path, number + 1))
        path.rename(_older(path, 1))
        if lost:
            text = f"the log is at its limit: its oldest {lost} bytes were removed"
            _append(path, level="warning", event=text)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def begin_run(path: Path, name: str) -> None:
    """Append a line to a log, by which readers tell a simulation from those before it.

    Args:
        name: The simulation's.

    Raises:
        OSError: It cannot be written.
    """
    _append(path, level="info", event=f"the simulation {name} begins", **{BEGINS: name})


def _append(path: Path, **entry: str) -> None:
    when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = json.dumps({"timestamp": when, **entry, "logger": __name__})
    new = open_log_file(str(path))
    try:
        os.write(new, f"{line}\n".encode())
    finally:
        os.close(new)
