"""The table of faults as text, from the outcomes of its rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.faults.outcomes import Outcome, Record
from tests.faults.registry import Row

__all__ = ["report"]


def report(chosen: Sequence[Row], rounds: int | None, record: Record) -> str:
    """The table in Markdown, the sources of its rounds, and the failed rounds."""
    lines = [
        "| # | fault | passes when | rounds | failed | minutes | largest; totals |",
        "|---|---|---|---|---|---|---|",
    ]
    failures, versions = [], Counter[str]()
    for each in chosen:
        mine = record.of(each.number)
        lines.append(_line(each, rounds or each.rounds, mine))
        failures += [_failure(outcome) for outcome in mine if outcome.error]
        versions.update(outcome.version for outcome in mine)
    ran = [f"{count} rounds on {version}" for version, count in versions.items()]
    if len(ran) > 1:
        ran.insert(0, f"Not of one version; now it is {record.version}:")
    return "\n".join([*lines, "", *ran, *failures])


def _line(each: Row, rounds: int, outcomes: Sequence[Outcome]) -> str:
    failed = sum(bool(outcome.error) for outcome in outcomes)
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    figures = each.summary([outcome.figures for outcome in outcomes])
    of = f"{len(outcomes)} of {rounds}"
    cells = (each.number, each.fault, each.passes, of, failed, f"{minutes:.1f}", figures)
    return f"| {' | '.join(map(str, cells))} |"


def _failure(outcome: Outcome) -> str:
    last = outcome.error.strip().splitlines()[-1]
    return f"failed: row {outcome.row}, round {outcome.round}, {outcome.case}: {last}"
