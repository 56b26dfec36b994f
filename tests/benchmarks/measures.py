"""Figures, and what they are read from: clocks, `/proc`, and sorted lists."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Figure", "Memory", "alive", "descendants", "memory", "percentile", "shares"]


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        system: What was measured: a form of this project, or a limit.
        params: What tells it from others of that metric, such as the number of agents.
    """

    system: str
    workload: str
    metric: str
    value: float
    unit: str
    params: Mapping[str, Any] = field(default_factory=dict)
    round: int = 0

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Figure:
        """Of a line that `to_json` made."""
        return cls(**json.loads(line))


def percentile(values: Iterable[float], q: float) -> float:
    """The q-th percentile, 0 to 100, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q / 100))]


def shares(total: int, parts: int) -> list[int]:
    """``total`` as that many nearly equal integers."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]


@dataclass(frozen=True)
class Memory:
    """Of a process, in KiB: shared pages count in part (``pss``) or not at all (``own``)."""

    pss: int
    own: int


def memory(pid: int) -> Memory:
    """What a process takes now."""
    kib: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        kib[name] = int(value)
    return Memory(kib["Pss:"], kib["Private_Clean:"] + kib["Private_Dirty:"])


def descendants(root: int) -> list[int]:
    """Processes below ``root``, which is not among them."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (stat := _stat(int(entry))):
            children.setdefault(int(stat[1]), []).append(int(entry))
    found: list[int] = []
    todo: list[int] = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def alive(pids: Iterable[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    return [pid for pid in pids if (stat := _stat(pid)) and stat[0] != "Z"]


def _stat(pid: int) -> Sequence[str] | None:
    """State, parent and so on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return None
