"""The table: each row a figure of this project beside the limit's of the same run.

What is to be reached is a multiple of the limit, so that it means the same on any machine; see the
README for where the multiples come from.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.measures import Figure
from tests.benchmarks.systems import FORMS

__all__ = ["ROWS", "Row", "table"]

Values = Mapping[tuple[Any, ...], Sequence[float]]


@dataclass(frozen=True)
class Row:
    """What is compared.

    Attributes:
        params: Those of the figure, all of them.
        reach: The multiple of the limit that is to be reached, or not to be passed where ``less``.
        forms: Forms of this project; the first one is judged.
        limit: System that gives the limit, by that metric (``limit_metric`` where it differs).
    """

    workload: str
    metric: str
    reach: float
    params: Mapping[str, Any] = field(default_factory=dict)
    less: bool = False
    forms: tuple[str, ...] = ("trio", "sync")
    limit: str = "fork"
    limit_metric: str = ""

    def key(self, system: str) -> tuple[Any, ...]:
        """Where its figures are."""
        metric = self.metric if system in FORMS else self.limit_metric or self.metric
        return system, self.workload, metric, *sorted(self.params.items())

    def reached(self, ratio: float) -> bool:
        """Whether that multiple of the limit will do."""
        return ratio <= self.reach if self.less else ratio >= self.reach


_ACROSS, _INSIDE = {"where": "across"}, {"where": "inside"}
_ATTACHED = ("attached", "attached-sync")
_STEPS = ("trio", "sync", "rounds")
_IN_STEPS = ("rounds", "trio")

ROWS: list[Row] = [
    Row("w1", "start from exec", 3.1, {"slaves": 4}, less=True),
    Row("w1", "start from exec", 1.6, {"slaves": 4}, less=True, forms=_ATTACHED[::-1]),
    Row(
        "w1",
        "start from connected",
        0.38,
        {"slaves": 4},
        less=True,
        forms=_ATTACHED,
        limit_metric="start from exec",
    ),
    Row("w2", "spawn_n", 0.19, {"n": 10_000}),
    Row("w2", "spawn one by one", 0.51),
    Row("w2", "spawn one by one, late", 0.51),
    Row("w3", "acts", 0.73, {"n": 10_000}, forms=_STEPS),
    Row("w3", "acts", 0.68, {"n": 1_000}, forms=_STEPS),
    Row("w3", "step, acts", 1.47, {"n": 100}, less=True, forms=_STEPS),
    Row("w3", "step, acts", 2.33, {"n": 100}, less=True, forms=_ATTACHED),
    Row("w3", "acts, default", 0.052, {"n": 10_000}, limit_metric="acts"),
    Row("w3", "acts that wait", 1.0, {"n": 10_000}, forms=_STEPS),
    Row("w4", "efficiency", 0.98),
    Row("w5", "calls", 0.5, _ACROSS, limit="sockets"),
    Row("w5", "latency p50", 1.17, _ACROSS, less=True, limit="sockets"),
    Row("w5", "latency p99", 1.21, _ACROSS, less=True, limit="sockets"),
    Row("w5", "calls", 0, _INSIDE, limit=""),
    Row("w5", "latency p50", 0, _INSIDE, less=True, limit=""),
    Row("w6", "create_connections", 1.28, less=True),
    Row("w6", "get_connections", 1.03, less=True),
    Row("w6", "get_agents", 1.67, less=True),
    Row("w7", "throughput", 1.0, {"kind": "numpy", "KiB": 1024}, limit="sockets"),
    Row("w7", "throughput", 1.07, {"kind": "numpy", "KiB": 64}, limit="sockets"),
    Row("w8", "close", 2.3, {"slaves": 8}, less=True),
    Row("w9", "idle slave, PSS", 1.34, less=True, forms=("trio",)),
    Row("w9", "agent", 2.03, less=True, forms=("trio",)),
    Row("w11", "call", 1.1, {"callers": 1}, less=True, forms=("rounds",), limit="trio"),
    Row("w11", "calls", 1.0, {"callers": 100}, forms=_IN_STEPS, limit="uvloop"),
    Row("w11", "calls", 2.0, {"callers": 1_000}, forms=_IN_STEPS, limit="uvloop"),
    Row("w11", "calls", 2.0, {"callers": 10_000}, forms=_IN_STEPS, limit="uvloop"),
    Row("w12", "opinions", 5.0, forms=("rounds",), limit="trio"),
    Row("w13", "step, uneven", 1.0, {"n": 1_000}, less=True, forms=("rounds",), limit="trio"),
    Row("w14", "step, outside", 1.0, {"n": 1_000}, less=True, forms=("rounds",), limit="trio"),
]


def table(figures: Iterable[Figure]) -> str:
    """Medians with their ranges, in Markdown; first the rows, then everything."""
    values: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    units: dict[tuple[Any, ...], str] = {}
    for figure in figures:
        key = (figure.system, figure.workload, figure.metric, *sorted(figure.params.items()))
        values[key].append(figure.value)
        units[key] = figure.unit
    lines = [
        "| | form | median (min-max) | the limit's | ratio | to reach | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        lines += [_line(row, form, values, units) for form in row.forms if row.key(form) in values]
    return "\n".join([*lines, "", *_everything(values, units)])


def _line(row: Row, form: str, values: Values, units: Mapping[tuple[Any, ...], str]) -> str:
    key, limit = row.key(form), row.key(row.limit)
    title = " ".join([row.workload.upper(), row.metric, *_words(key[3:])])
    cells = [title, form, f"{spread(values[key])} {units[key]}"]
    if limit in values:
        ratio = statistics.median(values[key]) / statistics.median(values[limit])
        sign = "at most" if row.less else "at least"
        judged = "yes" if row.reached(ratio) else "no"
        cells += [spread(values[limit]), f"{ratio:.3g}", f"{sign} {row.reach:g}"]
        cells.append(judged if form == row.forms[0] else f"({judged})")
    else:
        cells += [""] * 4
    return f"| {' | '.join(cells)} |"


def _everything(values: Values, units: Mapping[tuple[Any, ...], str]) -> list[str]:
    lines = ["| all figures | system | median (min-max) | rounds |", "|---|---|---|---|"]
    for key in sorted(values, key=lambda key: (key[1:3], str(key[3:]), key[0])):
        title = " ".join([key[1].upper(), key[2], *_words(key[3:])])
        rounds = len(values[key])
        lines.append(f"| {title} | {key[0]} | {spread(values[key])} {units[key]} | {rounds} |")
    return lines


def _words(params: Iterable[tuple[str, Any]]) -> list[str]:
    return [f"{name}={value}" for name, value in params]


def spread(values: Sequence[float]) -> str:
    """The median, and the range in parentheses."""
    if len(values) == 1:
        return _short(values[0])
    return f"{_short(statistics.median(values))} ({_short(min(values))}-{_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
