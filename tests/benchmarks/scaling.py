"""How a cost grows with a size, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["Point", "describe_growth", "slope"]

Point = tuple[float, float]  # a size, and what it cost

# Between two sizes a cost grows as a power of the size; these powers count as none, as linear.
FLAT = 0.15
LINEAR = (0.85, 1.15)


def describe_growth(points: Sequence[Point]) -> str:
    """Describe in which ranges the cost is flat, linear or more than linear.

    Args:
        points: By increasing size, each of a cost above 0.
    """
    if len(points) < 2:
        return "one size says nothing of growth"
    spans = [(low, high, _kind(low, high)) for low, high in pairwise(points)]
    runs: list[tuple[Point, Point, str]] = []
    for low, high, kind in spans:
        if runs and runs[-1][2] == kind:
            runs[-1] = (runs[-1][0], high, kind)
        else:
            runs.append((low, high, kind))
    texts = [f"{kind} from {_size(low)} to {_size(high)}" for low, high, kind in runs]
    texts += [
        f"a unit costs {_unit(high) / _unit(low):.2f} times as much at {_size(high)}"
        f" as at {_size(low)}"
        for low, high, kind in spans
        if kind == "more than linear"
    ]
    return "; ".join(texts)


def _kind(low: Point, high: Point) -> str:
    power = math.log(high[1] / low[1]) / math.log(high[0] / low[0])
    if power < FLAT:
        return "flat"
    if power < LINEAR[0]:
        return "less than linear"
    return "linear" if power <= LINEAR[1] else "more than linear"


def _unit(point: Point) -> float:
    return point[1] / point[0]


def _size(point: Point) -> str:
    return f"{point[0]:,g}"


def slope(points: Sequence[Point]) -> float:
    """The slope of a line through the points, by least squares."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
