"""A multi-environment with two slaves, for tests that run under trio."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment
from tests.support import agents

BOUND_SECONDS = 30


@pytest.fixture
def seed() -> int | None:
    """A test that is about random numbers has one; slaves are ready sooner without numpy."""
    return None


@pytest.fixture
async def menv(seed: int | None) -> AsyncIterator[MultiEnvironment]:
    """Two slaves with nothing in them; the test's own body is bounded by its fixture."""
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(("localhost", 0), Environment, agents.Host, seed=seed) as menv:
            await menv.spawn_slaves([("localhost", 0)] * 2, Environment, agents.Manager)
            yield menv
