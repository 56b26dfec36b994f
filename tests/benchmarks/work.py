"""The work of agents, in plain Python: the same for this project and for the limits."""

from __future__ import annotations

from typing import Any

__all__ = ["OUTSIDE_SECONDS", "burn", "burn_unevenly", "touch"]

# About a millisecond of pure Python.
BURN_ROUNDS = 10_000
# About ten microseconds, and a hundred times as much.
SHORT_ROUNDS, LONG_ROUNDS = 100, 10_000
OUTSIDE_SECONDS = 0.05
PAGE_BYTES = 4096


def burn(rounds: int = BURN_ROUNDS) -> int:
    """Hold the processor for a while."""
    x = 1
    for _ in range(rounds):
        x = (x * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
    return x


def burn_unevenly(number: int) -> int:
    """Hold the processor for a moment; one number of a hundred for a hundred times as long."""
    return burn(SHORT_ROUNDS if number % 100 else LONG_ROUNDS)


def touch(value: Any) -> float:
    """Judge a number by itself, bytes or an array of bytes by a byte of each page."""
    if isinstance(value, (int, float)):
        return float(value)
    return float(sum(memoryview(value)[::PAGE_BYTES]))
