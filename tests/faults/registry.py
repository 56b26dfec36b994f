"""The table of faults: each row is a fault that is injected again and again, and what must hold.

A row is a function that injects its fault once and returns figures, or raises. The test suite runs
its first rounds; ``python -m tests.faults`` runs all of them and prints the table (`report`). The
rows themselves are in `tests.faults.cases`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROWS", "TOTAL", "Figures", "Row", "calls_of", "in_rounds_too", "row"]

Figures = dict[str, float]
Once = Callable[[str, int, Path], Figures]

# Prefix of figures that the table sums over all rounds; of the others it shows the largest.
TOTAL = "total "
# Ends the name of a case in which agents' calls go in rounds.
IN_ROUNDS = ", in rounds"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        passes: What must hold, in words.
        cases: Ways to inject the fault; the rounds go through them in turn.
        rounds: How many the long form has.
        short: How many of them, from the first, the test suite has.
        quick: How many of those are marked slow; the others are marked long.
        once: Injects the fault; called with the case, the round's number and an empty folder.
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
        """The case of a round; the stride makes neighbouring rounds differ in all respects."""
        return self.cases[number * _STRIDE % len(self.cases)]

    def summary(self, figures: Sequence[Figures]) -> str:
        """The figures of several rounds, as the text of one cell."""
        names = sorted({name for each in figures for name in each})
        texts = []
        for name in names:
            values = [each[name] for each in figures if name in each]
            value = sum(values) if name.startswith(TOTAL) else max(values)
            texts.append(f"{name} {value:.4g}" if value % 1 else f"{name} {value:.0f}")
        return ", ".join(texts)


def in_rounds_too(cases: Sequence[str]) -> tuple[str, ...]:
    """The cases, and each of them with agents' calls in rounds."""
    return (*cases, *(f"{case}{IN_ROUNDS}" for case in cases))


def calls_of(case: str) -> tuple[str, str]:
    """How agents' calls go in a case, as `MultiEnvironment` takes it, and the case without that."""
    plain = case.removesuffix(IN_ROUNDS)
    return ("free" if plain == case else "rounds"), plain


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
    """Register a function as a row."""

    def enter(once: Once) -> Once:
        assert len(cases) % _STRIDE, f"row {number}: some of {len(cases)} cases would never run"
        ROWS[number] = Row(number, fault, passes, cases, rounds, short, quick, once)
        return once

    return enter
