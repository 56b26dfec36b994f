"""Outcomes of rounds, kept in a file between runs, and the sources that they are about."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.registry import Figures
from tests.support.programs import ROOT, run

__all__ = ["Outcome", "Record", "version"]

# The sources that can change an outcome: the product, the rows and their helpers.
_SOURCES = (
    "creamas_sc/**/*.py",
    "supervisor/**/*.py",
    "tests/*.py",
    "tests/support/*.py",
    "tests/faults/**/*.py",
)


@dataclass
class Outcome:
    """How one round ended.

    Attributes:
        version: Version of the sources, see `version`.
        error: The traceback if it failed.
    """

    row: int
    round: int
    case: str
    version: str
    seconds: float = 0.0
    error: str = ""
    figures: Figures = field(default_factory=dict)


def version() -> str:
    """The commit, Python's version, and a hash of the sources as they are, committed or not."""
    paths = sorted(path for pattern in _SOURCES for path in ROOT.glob(pattern))
    hashed = hashlib.sha256()
    for path in paths:
        hashed.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    commit = run("git", "describe", "--always", "--dirty").stdout.strip() or "no commit"
    return f"{commit}, sources {hashed.hexdigest()[:8]}, Python {platform.python_version()}"


class Record:
    """A file with a line for each outcome; the last one of a round counts.

    Args:
        version: Outcomes of other sources do not count.
        older: Unless this is true.
    """

    def __init__(self, file: Path, version: str, older: bool) -> None:
        self._file = file
        self.version = version
        self._outcomes: dict[tuple[int, int], Outcome] = {}
        for outcome in self._read():
            if older or _sources(outcome.version) == _sources(version):
                self._outcomes[outcome.row, outcome.round] = outcome

    def _read(self) -> Iterator[Outcome]:
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        for line in lines:
            try:
                yield Outcome(**json.loads(line))
            except (ValueError, TypeError):  # cut short, where the run was killed
                continue

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._outcomes

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        self._outcomes[outcome.row, outcome.round] = outcome
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")

    def of(self, row: int) -> list[Outcome]:
        """A row's outcomes, by round."""
        return [self._outcomes[key] for key in sorted(self._outcomes) if key[0] == row]


def _sources(version: str) -> str:
    # The same sources may be of two commits, one of which changed nothing that matters here.
    return version.partition(", ")[2]
