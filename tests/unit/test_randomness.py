"""Seeds and random generators: a seed repeats a run, with numpy or without it."""

from __future__ import annotations

import random

import pytest

from creamas_sc import CreativeAgent, Environment, MultiEnvironment
from creamas_sc.core.randomness import RandomSource, Spawned, drawn_seed
from tests.support.programs import run_code

PLACE = ("localhost", 0)
SEED_NUMPY = """
import sys
from creamas_sc.core.randomness import seed_process
if sys.argv[1] == "before":
    import numpy
seed_process(5, index=1)
assert ("numpy" in sys.modules) == (sys.argv[1] == "before")
import random
import numpy
print(random.random(), numpy.random.random(), numpy.random.__spec__.name)
"""


def test_an_agents_generator_is_pythons_whatever_is_installed() -> None:
    env = Environment(PLACE)
    env.seed = 5
    CreativeAgent(env)
    agent = CreativeAgent(env)
    assert type(agent.rng) is random.Random
    assert agent.rng.random() == random.Random("5/(0, 1)").random()


def test_numpys_generator_depends_on_the_same() -> None:
    np = pytest.importorskip("numpy")
    env = Environment(PLACE)
    env.seed = 5
    CreativeAgent(env)
    agent = CreativeAgent(env)
    assert agent.numpy_rng is agent.numpy_rng
    expected = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(0, 1)))
    assert agent.numpy_rng.random() == expected.random()
    spawned = RandomSource(5, 3).numpy_generator(7, [Spawned(6, 4, 2)])
    expected = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(5,)))
    assert spawned.random() == expected.random()


def test_numpys_own_generator_is_seeded_when_numpy_is_imported() -> None:
    pytest.importorskip("numpy")
    runs = [run_code(SEED_NUMPY, when) for when in ("before", "after", "after")]
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stderr + runs[1].stderr
    assert len({run.stdout for run in runs}) == 1


def test_a_seed_is_drawn_where_none_is_given() -> None:
    env, other = Environment(PLACE), Environment(PLACE)
    seed = env.seed
    assert env.seed == seed != other.seed
    other.seed = seed
    assert CreativeAgent(env).rng.random() == CreativeAgent(other).rng.random()
    env.seed = None
    assert env.seed != seed


def test_a_multi_environment_draws_a_seed_and_passes_it_on() -> None:
    menv = MultiEnvironment(PLACE, Environment)
    assert menv.seed == menv.env.seed
    assert menv.seed != MultiEnvironment(PLACE, Environment).seed
    menv.seed = 3
    menv.seed = None
    assert menv.seed == menv.env.seed != 3


def test_one_that_is_drawn_already_is_taken() -> None:
    token = drawn_seed.set(12)
    try:
        assert MultiEnvironment(PLACE, Environment).seed == 12
        assert MultiEnvironment(PLACE, Environment, seed=3).seed == 3
    finally:
        drawn_seed.reset(token)
