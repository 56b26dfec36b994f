"""The scoreboard: faults that are injected again and again, and what must hold each time.

A row is a function that injects its fault once and returns figures, or raises. The test suite runs
the first of its rounds; ``python -m tests.faults`` runs all of them and prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROWS", "TOTAL", "Figures", "Row", "row"]

Figures = dict[str, float]
Once = Callable[[str, int, Path], Figures]

# Begins the names of figures of which the table shows the sum over all rounds.
TOTAL = "total "


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        passes: What must hold, in words.
        cases: Ways to inject the fault; the rounds go through them in turn.
        rounds: How many the long form has.
        short: How many of them, from the first, the test suite has.
        quick: How many of those a plain `pytest` runs; the others are marked slow.
        once: Injects it: called with the case, the round's number and an empty folder. Returns
            figures, of which the table shows the largest, or the sum, see `TOTAL`.
    """

    number: int
    fault: str
    passes: str
    cases: tuple[str, ...]
    rounds: int
    short: int
    quick: int
    once: Once

    def case(self, number: int) -> str:
        """The case of a round: neighbours differ in all respects, so that few show much."""
        return self.cases[number * _STRIDE % len(self.cases)]

    def told(self, figures: Sequence[Figures]) -> str:
        """The figures of several rounds in one cell."""
        names = sorted({name for each in figures for name in each})
        told = []
        for name in names:
            values = [each[name] for each in figures if name in each]
            value = sum(values) if name.startswith(TOTAL) else max(values)
            told.append(f"{name} {value:.4g}" if value % 1 else f"{name} {value:.0f}")
        return ", ".join(told)


# Shares no factor with any number of cases.
_STRIDE = 29

ROWS: dict[int, Row] = {}


def row(
    number: int,
    fault: str,
    passes: str,
    *,
    cases: tuple[str, ...],
    rounds: int,
    short: int,
    quick: int = 1,
) -> Callable[[Once], Once]:
    """Enter a function as a row."""

    def enter(once: Once) -> Once:
        assert len(cases) % _STRIDE, f"row {number}: some of {len(cases)} cases would never run"
        ROWS[number] = Row(number, fault, passes, cases, rounds, short, quick, once)
        return once

    return enter
