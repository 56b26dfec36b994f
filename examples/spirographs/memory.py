"""A short-term memory of pictures, and how new a picture is compared with them."""

from __future__ import annotations

import numpy as np

from .curves import SIDE, Gears, Image, distance

__all__ = ["Memory"]


class Memory:
    """The last ``capacity`` pictures that were seen, with the gears that drew them."""

    def __init__(self, capacity: int) -> None:
        """
        Raises:
            ValueError: The capacity is not positive.
        """
        if capacity < 1:
            raise ValueError(f"a memory needs room for at least one picture, not {capacity}")
        self._pictures = np.zeros((capacity, SIDE, SIDE), dtype=np.float32)
        self._gears: list[Gears] = []
        self._oldest = 0

    def __len__(self) -> int:
        return len(self._gears)

    def memorize(self, gears: Gears, picture: Image) -> None:
        """Remember a picture; a full memory drops its oldest one."""
        if len(self) < len(self._pictures):
            self._pictures[len(self)] = picture
            self._gears.append(gears)
            return
        self._pictures[self._oldest] = picture
        self._gears[self._oldest] = gears
        self._oldest = (self._oldest + 1) % len(self)

    def novelty(self, picture: Image) -> float:
        """Return the distance to the most similar picture in memory, 0 to 1; 1 if it is empty."""
        if not self._gears:
            return 1.0
        return float(distance(picture, self._pictures[: len(self)]).min())

    def recall(self, rng: np.random.Generator) -> Gears | None:
        """Return the gears of a random picture in memory; None if it is empty."""
        return self._gears[rng.integers(len(self))] if self._gears else None
