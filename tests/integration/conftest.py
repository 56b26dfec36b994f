"""Fixtures with slaves: a multi-environment, and the supervisor that such tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment
from tests.support import agents
from tests.support.shared_supervisor import sharing_supervisor, uses_shared_supervisor

BOUND_SECONDS = 30


@pytest.fixture(scope="session")
def shared_supervisor(
    _surroundings: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Keep one process tree for all tests of this worker that can share it."""
    with sharing_supervisor(tmp_path_factory.mktemp("shared")):
        yield


@pytest.fixture
def seed() -> int | None:
    """A test that is about random numbers has one."""
    return None


@pytest.fixture
def calls() -> str:
    """How agents' calls go in steps; `tests.support.marks.also_free` replaces it."""
    return "rounds"


@pytest.fixture
async def own_menv(seed: int | None) -> AsyncIterator[MultiEnvironment]:
    """The same as `menv` in a separate tree, for tests of keeper, zygote and supervisor."""
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(("localhost", 0), Environment, agents.Host, seed=seed) as menv:
            await menv.spawn_slaves([("localhost", 0)] * 2, Environment, agents.Manager)
            yield menv


@pytest.fixture
async def menv(
    shared_supervisor: None, seed: int | None, calls: str
) -> AsyncIterator[MultiEnvironment]:
    """Two empty slaves in the shared tree; the fixture bounds the body of the test, too."""
    with trio.fail_after(BOUND_SECONDS):
        with uses_shared_supervisor():
            menv = MultiEnvironment(
                ("localhost", 0), Environment, agents.Host, seed=seed, calls=calls
            )
        async with menv:
            await menv.spawn_slaves([("localhost", 0)] * 2, Environment, agents.Manager)
            yield menv
