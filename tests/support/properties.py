"""Properties: tests of a claim with examples that hypothesis chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["bounded", "few_or_many", "holds_for"]


def few_or_many(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrise a test by its number of ``examples``: few by default, many if it may be slow."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])


def bounded(examples: int, **more: Any) -> settings:
    """Settings for so many examples, each of which may take its time."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        **more,
    )


def holds_for(
    *strategies: SearchStrategy[Any], few: int, many: int
) -> Callable[[Callable[..., None]], Callable[[int], None]]:
    """Make a test of a function whose arguments are drawn from ``strategies``.

    Args:
        few: How many examples a plain `pytest` tries.
        many: How many the slow tests try.
    """

    def decorate(claim: Callable[..., None]) -> Callable[[int], None]:
        def test(examples: int) -> None:
            bounded(examples)(given(*strategies)(claim))()

        test.__name__, test.__qualname__ = claim.__name__, claim.__qualname__
        test.__module__, test.__doc__ = claim.__module__, claim.__doc__
        marked: Callable[[int], None] = few_or_many(few, many)(test)
        return marked

    return decorate
