"""The random generators of agents."""

from __future__ import annotations

import bisect
import random
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from creamas_sc.foreign import shown

# A number of them can be printed, and numpy draws 128 of them for a seed of its own.
SEED_BITS = 256


def check_seed(seed: Any) -> int | None:
    """Return ``seed``; raise a ValueError unless it is an int of at most `SEED_BITS`, or None."""
    if seed is not None and (type(seed) is not int or seed < 0 or seed.bit_length() > SEED_BITS):
        limits = f"an int of at least 0 and at most {SEED_BITS} bits"
        raise ValueError(f"seed must be {limits}, or None, not {shown(seed)}")
    return seed


class Spawned(NamedTuple):
    """Agents of one environment that were spawned by one call.

    Attributes:
        first: Number of the first one in the environment.
        in_simulation: Its number in the order of spawning in the whole simulation.
        n: How many there are.
    """

    first: int
    in_simulation: int
    n: int


class RandomSource(NamedTuple):
    """What the random generators of an environment's agents depend on.

    Attributes:
        seed: Of the simulation; None for fresh entropy.
        environment: The environment's number in the simulation.
        incarnation: How often the environment's process has been restarted.
    """

    seed: int | None = None
    environment: int = 0
    incarnation: int = 0

    def generator(self, number: int, spawns: Sequence[Spawned]) -> Any:
        """Make an agent's random generator: numpy's where numpy is installed, else Python's.

        It depends on the seed and on the order of spawning in the simulation; for an agent that
        another agent created, on the environment and the order there. So it does not depend on the
        slave in which a spawned agent lives.

        Args:
            number: The agent's number in its environment.
            spawns: In ascending order.
        """
        key: tuple[int, ...] = (self.environment, number)
        at = bisect.bisect_right(spawns, (number, sys.maxsize, 0)) - 1
        if at >= 0:
            first, index, n = spawns[at]
            if number - first < n:  # else it was created by another agent
                key = (index + number - first,)
        if self.incarnation:  # in a restarted process; longer than any key of a first one
            key = (*key, 0, 0, self.incarnation)
        try:
            import numpy as np
        except ImportError:
            return random.Random(None if self.seed is None else f"{self.seed}/{key}")
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
