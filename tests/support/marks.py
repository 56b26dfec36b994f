"""Marks for parametrised tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

__all__ = ["in_rounds_too", "slow_but"]

# For tests whose agents' calls may go in either way; in rounds the test is slow.
in_rounds_too = pytest.mark.parametrize(
    "calls", ["free", pytest.param("rounds", marks=pytest.mark.slow)]
)


def slow_but(quick: Collection[tuple[Any, ...]], cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """All cases as parameters, those that are not in ``quick`` marked slow."""
    cases = list(cases)
    assert set(quick) <= set(cases), "a quick case that is not a case"
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in cases]
