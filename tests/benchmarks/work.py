"""The work of agents, in plain Python: the same for this project and for the limits."""

from __future__ import annotations

from typing import Any

__all__ = ["burn", "touch"]

# About a millisecond of pure Python.
BURN_ROUNDS = 10_000
PAGE_BYTES = 4096


def burn() -> int:
    """Hold the processor for a while."""
    x = 1
    for _ in range(BURN_ROUNDS):
        x = (x * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
    return x


def touch(value: Any) -> float:
    """Judge a number by itself, bytes or an array of bytes by a byte of each page."""
    if isinstance(value, (int, float)):
        return float(value)
    return float(sum(memoryview(value)[::PAGE_BYTES]))
