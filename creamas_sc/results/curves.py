"""Values by step in a limited space: over many steps, means of steps that follow each other."""

from __future__ import annotations

import math
from array import array
from typing import TypeVar

T = TypeVar("T", int, float)

MOST_BUCKETS = 2048


class Curve:
    """A value by step, from step 1 on.

    The steps are in buckets of ``width`` of them. Once there are too many, each two become one. So
    curves have the same buckets wherever their widths are made equal, by `coarse`.

    Args:
        buckets: How many there may be.

    Attributes:
        last: The greatest step; 0 before one.
    """

    def __init__(self, buckets: int = MOST_BUCKETS) -> None:
        self.width, self.last = 1, 0
        self._most = buckets
        self._sums, self._counts = array("d"), array("q")

    def add(self, step: int, value: float) -> None:
        """Add a value; several of one step count as their mean."""
        if step < 1 or not math.isfinite(value):
            return
        self.last = max(self.last, step)
        while (self.last - 1) // self.width >= self._most:
            self.width *= 2
            self._sums, self._counts = _pairs(self._sums), _pairs(self._counts)
        bucket = (step - 1) // self.width
        missing = bucket + 1 - len(self._sums)
        if missing > 0:
            self._sums.extend([0.0] * missing)
            self._counts.extend([0] * missing)
        self._sums[bucket] += value
        self._counts[bucket] += 1

    def width_for(self, points: int) -> int:
        """The least width with which it has so many points at most."""
        width = self.width
        while (self.last - 1) // width >= points:
            width *= 2
        return width

    def coarse(self, width: int) -> dict[int, float]:
        """Bucket -> mean, in buckets of ``width`` steps: a power of 2, not less than its own.

        The last step of a bucket is ``width`` times its number plus one.
        """
        ratio = width // self.width
        sums: dict[int, tuple[float, int]] = {}
        for at, (total, count) in enumerate(zip(self._sums, self._counts, strict=True)):
            if count:
                known = sums.get(at // ratio, (0.0, 0))
                sums[at // ratio] = known[0] + total, known[1] + count
        return {bucket: total / count for bucket, (total, count) in sums.items()}


def _pairs(values: array[T]) -> array[T]:
    """The sums of each two."""
    code = values.typecode
    return array(code, [sum(values[at : at + 2]) for at in range(0, len(values), 2)])
