"""A bound on how many different values of one hash a message may hold.

Adding a key to a dict takes as long as there are keys of the same hash in it. Hashes of strings are
secret, those of numbers and of what is made of numbers can be calculated: 800 KB of integers beyond
64 bits, all of one hash, would stop a process for 16 seconds. Where values are decoded nobody knows
yet which will be keys, so all are counted whose hash a sender can choose.
"""

from __future__ import annotations

from typing import Any, Final

from creamas_sc.errors import DecodeError

MOST: Final = 256
"""How many different values may have one hash; by chance there are hardly two."""


class Collisions:
    """Counts the values of one message by hash."""

    def __init__(self) -> None:
        self._first: dict[int, Any] = {}
        self._more: dict[int, int] = {}

    def add(self, value: Any) -> None:
        """Count a value, if it can be a key.

        Raises:
            DecodeError: Too many other ones have its hash.
        """
        try:
            key = hash(value)
            first = self._first.setdefault(key, value)
            if first is value or first == value:
                return
        except Exception:  # of a user's class; in a dict it would be the same
            return
        count = self._more.get(key, 0) + 1
        if count >= MOST:
            raise DecodeError(f"more than {MOST} different values have the same hash")
        self._more[key] = count
