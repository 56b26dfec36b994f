"""Marks for parametrised tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

__all__ = ["also_free", "slow_but"]

# For tests whose agents' calls may go in either way; with free ones the test is slow.
also_free = pytest.mark.parametrize(
    "calls", ["rounds", pytest.param("free", marks=pytest.mark.slow)]
)


def slow_but(quick: Collection[tuple[Any, ...]], cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """All cases as parameters, those that are not in ``quick`` marked slow."""
    cases = list(cases)
    assert set(quick) <= set(cases), "a quick case that is not a case"
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in cases]
