"""Metrics of runs as lines: one a run, or the mean with a band of those that are alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from creamas_sc.page.source import Json
from creamas_sc.results.curves import Curve
from creamas_sc.results.plotting import group_of, line_of, natural

MOST_LINES: Final = 24
MOST_METRICS: Final = 64

Curves = Mapping[str, tuple[str, Curve]]


def metrics(
    runs: Iterable[tuple[str, Mapping[str, Any], Curves]], by: str | None, points: int
) -> Json:
    """What the page shows.

    Args:
        runs: Name, parameters and curves of each.
        by: A parameter: runs with the same value are one line.
        points: The most of a line.

    Raises:
        BadValue: There is no such parameter.
    """
    groups: dict[str, dict[str, list[Curve]]] = {}
    kinds: dict[str, str] = {}
    for run, parameters, curves in runs:
        label = run if by is None else group_of(by, parameters)
        for name, (kind, curve) in curves.items():
            if len(kinds) < MOST_METRICS or name in kinds:
                kinds.setdefault(name, kind)
                groups.setdefault(name, {}).setdefault(label, []).append(curve)
    # What the society says of itself comes first.
    names = sorted(kinds, key=lambda name: kinds[name] == "steps")
    return {
        "names": names,
        "kinds": kinds,
        "series": {name: _lines(groups[name], by is not None, points) for name in names},
        "lines_total": {name: len(groups[name]) for name in names},
    }


def _lines(groups: Mapping[str, Sequence[Curve]], sort: bool, points: int) -> list[Json]:
    labels = sorted(groups, key=natural) if sort else list(groups)[-MOST_LINES:]
    return [_line(label, groups[label], points) for label in labels[:MOST_LINES]]


def _line(label: str, curves: Sequence[Curve], points: int) -> Json:
    width = max(curve.width_for(points) for curve in curves)
    last = max(curve.last for curve in curves)
    line = line_of(label, [curve.coarse(width) for curve in curves])
    return {
        "label": label,
        "runs": len(curves),
        "steps": [min((bucket + 1) * width, last) for bucket in line.steps],
        "values": line.values,
        "low": line.low,
        "high": line.high,
    }
