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
# Begins the key of an agent that another one made.
_MADE = 2**31


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

    def order(self, number: int, spawns: Sequence[Spawned]) -> int | tuple[int, ...]:
        """Return an agent's place in the order of spawning in the simulation.

        It does not depend on the slave in which the agent lives, unless it was spawned by none of
        the calls: such agents come after all others, by environment and the order there.

        Args:
            number: The agent's number in its environment.
            spawns: In ascending order.
        """
        at = bisect.bisect_right(spawns, (number, sys.maxsize, 0)) - 1
        if at >= 0:
            first, index, n = spawns[at]
            if number - first < n:
                return index + number - first
        return (sys.maxsize, self.environment, number) if self.environment else number

    def generator(
        self, number: int, spawns: Sequence[Spawned], made: tuple[int, ...] | None = None
    ) -> Any:
        """Make an agent's random generator: numpy's where numpy is installed, else Python's.

        It depends on the seed and the agent's place in the order of spawning.

        Args:
            number, spawns: As of `order`.
            made: The agent's `number`, if another one made it in a step.
        """
        key: tuple[int, ...] = (self.environment, number)
        order = made or self.order(number, spawns)
        if made:
            key = (_MADE, *made)
        elif spawns and type(order) is int:
            key = (order,)
        if self.incarnation:  # in a restarted process; longer than any key of a first one
            key = (*key, 0, 0, self.incarnation)
        try:
            import numpy as np
        except ImportError:
            return random.Random(None if self.seed is None else f"{self.seed}/{key}")
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
