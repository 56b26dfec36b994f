"""What the data of a connection say about its strength."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def weight(data: Any) -> float:
    """The weight of a connection: the number "weight" in its data, or the only one; else 1."""
    if isinstance(data, Mapping):
        numbers = [value for value in data.values() if _is_number(value)]
        data = data.get("weight", numbers[0] if len(numbers) == 1 else None)
    if _is_number(data):
        try:
            if math.isfinite(found := float(data)):
                return found
        except OverflowError:
            pass
    return 1.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
