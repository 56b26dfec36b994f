"""What a process takes of its machine, as the kernel says: the process itself is not asked."""

from __future__ import annotations

import os
from typing import TypedDict


class ProcessLoad(TypedDict):
    """What a process takes.

    ``state``: "running", "sleeping", "waiting for a disk", "stopped" or "ended"; or "unknown", of a
    process on a machine that does not answer. ``cpu_seconds`` is the time on processors since its
    start, ``memory_bytes`` its resident memory, what it shares with others included; both are None
    if it has ended, or if that is not known.
    """

    state: str
    cpu_seconds: float | None
    memory_bytes: int | None


ENDED: ProcessLoad = {"state": "ended", "cpu_seconds": None, "memory_bytes": None}
UNKNOWN: ProcessLoad = {"state": "unknown", "cpu_seconds": None, "memory_bytes": None}
_STATES = {"R": "running", "D": "waiting for a disk", "T": "stopped", "t": "stopped"}
_OVER = ("Z", "X", "x")
# Of /proc/PID/stat, counted from the state on.
_USER, _SYSTEM, _PAGES = 11, 12, 21


def load_of(pid: int) -> ProcessLoad:
    """Return what the process ``pid`` takes."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ENDED
    if not fields or fields[0] in _OVER:
        return ENDED
    ticks = int(fields[_USER]) + int(fields[_SYSTEM])
    return {
        "state": _STATES.get(fields[0], "sleeping"),
        "cpu_seconds": ticks / os.sysconf("SC_CLK_TCK"),
        "memory_bytes": int(fields[_PAGES]) * os.sysconf("SC_PAGE_SIZE"),
    }
