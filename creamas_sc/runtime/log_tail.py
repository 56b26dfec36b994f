"""The end of a log in files, and what its lines say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from creamas_sc.runtime.log_files import BEGINS, log_files

BLOCK_BYTES = 1 << 16


class LogTail:
    """The last lines of a log, and the lines that are appended later.

    Args:
        file: The newest of the log's files; closed with the tail.
        simulation: Leave out what is from simulations that had this name before.
    """

    def __init__(self, file: BinaryIO, lines: int, simulation: str | None = None) -> None:
        self._path = Path(file.name)
        self._file = file
        self._before: BinaryIO | None = None  # into which processes may go on writing for a while
        last = _last_lines(file, lines)
        for path in reversed(log_files(self._path)):
            missing = lines - last.count(b"\n") - (not last.endswith(b"\n") and bool(last))
            if missing <= 0:
                break
            with path.open("rb") as older:
                if not _same(older, self._file):
                    last = _last_lines(older, missing) + last
        self._incomplete = last if simulation is None else _last_run(last, simulation)

    def read(self, *, whole: bool) -> list[str]:
        """Return the new lines; with ``whole`` also a last one without a line end."""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # the file was truncated
        late = b"" if self._before is None else self._before.read()
        data = late + self._incomplete + self._file.read()
        while (newer := self._open_newer()) is not None:
            data += self._file.read()  # until it was moved
            if self._before is not None:
                self._before.close()
            self._before, self._file = self._file, newer
            data += newer.read()
        *lines, self._incomplete = data.split(b"\n")
        if whole and self._incomplete:
            lines, self._incomplete = [*lines, self._incomplete], b""
        return [line.decode(errors="replace") for line in lines]

    def _open_newer(self) -> BinaryIO | None:
        """Open the file that follows the one being read; None if that is the newest."""
        newer: BinaryIO | None = None
        for path in reversed(log_files(self._path)):
            try:
                file = path.open("rb")
            except FileNotFoundError:  # it was just moved
                continue
            if _same(file, self._file):
                file.close()
                break
            if newer is not None:
                newer.close()
            newer = file
        else:
            # It was removed, or is just being moved and will be found again.
            if newer is not None and os.fstat(self._file.fileno()).st_nlink:
                newer.close()
                return None
        return newer

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._before is not None:
            self._before.close()


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _last_lines(file: BinaryIO, lines: int) -> bytes:
    """The last lines of a file, with their ends, and its end as the place to read on from."""
    start = end = file.seek(0, os.SEEK_END)
    block = BLOCK_BYTES
    parts = [b""]
    while start > 0 and lines and len(parts) <= lines + 1:
        start, block = max(0, end - block), 2 * block
        file.seek(start)
        parts = file.read(end - start).split(b"\n")
    # After a last line end, the last part is empty and not a line.
    return b"\n".join(parts[-lines - (not parts[-1]) :])


def _last_run(data: bytes, name: str) -> bytes:
    """The lines of the last simulation of that name."""
    lines = data.splitlines(keepends=True)
    for number in range(len(lines) - 1, -1, -1):
        if BEGINS.encode() in lines[number]:
            entry = parsed(lines[number].decode(errors="replace"))
            if entry.get(BEGINS) == name:
                return b"".join(lines[number:])
    return data


def parsed(line: str) -> dict[str, Any]:
    """The entry of a line; of one that was printed, its text as "printed"."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    # Any other line was printed, usually by a user's code.
    return entry if isinstance(entry, dict) and "event" in entry else {"printed": line}
