"""A short-term memory of pictures, and how new a picture looks beside it."""

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
            raise ValueError(f"a memory needs room for one picture at least, not {capacity}")
        self._pictures = np.zeros((capacity, SIDE, SIDE), dtype=np.float32)
        self._gears: list[Gears] = []
        self._oldest = 0

    def __len__(self) -> int:
        return len(self._gears)

    def memorize(self, gears: Gears, picture: Image) -> None:
        """Remember a picture; a full memory forgets its oldest one for it."""
        if len(self) < len(self._pictures):
            self._pictures[len(self)] = picture
            self._gears.append(gears)
            return
        self._pictures[self._oldest] = picture
        self._gears[self._oldest] = gears
        self._oldest = (self._oldest + 1) % len(self)

    def novelty(self, picture: Image) -> float:
        """Distance to the most similar picture that is remembered, 0 to 1; 1 if there is none."""
        if not self._gears:
            return 1.0
        return float(distance(picture, self._pictures[: len(self)]).min())

    def recall(self, rng: np.random.Generator) -> Gears | None:
        """The gears of one remembered picture, drawn evenly; None if there is none."""
        return self._gears[rng.integers(len(self))] if self._gears else None
