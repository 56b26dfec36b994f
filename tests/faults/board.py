"""The scoreboard: faults that are injected again and again, and what must hold each time.

A row is a function that injects its fault once and returns figures, or raises. The test suite runs
each of its cases once; ``python -m tests.faults`` runs all its rounds and prints the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROWS", "Figures", "Row", "row"]

Figures = dict[str, float]
Once = Callable[[str, int, Path], Figures]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        passes: What must hold, in words.
        cases: Ways to inject the fault; the rounds go through them in turn.
        rounds: How many the long form has.
        short: How many of them, from the first, the test suite runs.
        once: Injects it: called with the case, the round's number and an empty folder. Returns
            figures, of which the table shows the largest.
    """

    number: int
    fault: str
    passes: str
    cases: tuple[str, ...]
    rounds: int
    short: int
    once: Once

    def case(self, number: int) -> str:
        """The case of a round: neighbours differ in all respects, so that few show much."""
        return self.cases[number * _STRIDE % len(self.cases)]


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
) -> Callable[[Once], Once]:
    """Enter a function as a row."""

    def enter(once: Once) -> Once:
        ROWS[number] = Row(number, fault, passes, cases, rounds, short, once)
        return once

    return enter
