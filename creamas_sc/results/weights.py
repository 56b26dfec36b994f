"""What the data of a connection say about its strength."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def weight(data: Any) -> float:
    """The weight of a connection: its data, or "weight" in them, if that is a number; else 1."""
    if isinstance(data, Mapping):
        data = data.get("weight")
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        try:
            if math.isfinite(found := float(data)):
                return found
        except OverflowError:
            pass
    return 1.0
