"""Seeds, and the random generators that depend on them: of agents, and of a whole process."""

from __future__ import annotations

import bisect
import random
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

from creamas_sc.foreign import shown

# A number of them can be printed, and numpy draws 128 of them for a seed of its own.
SEED_BITS = 256
# Begins the key of an agent that another one made.
_MADE = 2**31
# Of a seed that is drawn: it can be typed, and every reader of JSON knows such an int.
DRAWN_BITS = 53

# Drawn already, for the environments that are being made.
drawn_seed: ContextVar[int | None] = ContextVar("drawn_seed", default=None)


def draw_seed() -> int:
    """Return a seed for a run that was given none, so that it can be repeated."""
    drawn = drawn_seed.get()
    return random.SystemRandom().getrandbits(DRAWN_BITS) if drawn is None else drawn


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
        seed: Of the simulation; None if it has none yet.
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
    ) -> random.Random:
        """Make an agent's random generator.

        Args:
            number, spawns: As of `order`.
            made: The agent's `number`, if another one made it in a step that went in rounds.
        """
        return random.Random(f"{self.seed}/{self._key(number, spawns, made)}")

    def numpy_generator(
        self, number: int, spawns: Sequence[Spawned], made: tuple[int, ...] | None = None
    ) -> Any:
        """Make an agent's generator of numpy, which depends on the same."""
        import numpy as np

        key = self._key(number, spawns, made)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _key(
        self, number: int, spawns: Sequence[Spawned], made: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        order = self.order(number, spawns)
        key: tuple[int, ...] = (self.environment, number)
        if made:
            key = (_MADE, *made)
        elif spawns and type(order) is int:
            key = (order,)
        if self.incarnation:  # in a restarted process; longer than any key of a first one
            key = (*key, 0, 0, self.incarnation)
        return key


def seed_process(set_seed: bool | int, index: int = 0, incarnation: int = 0) -> None:
    """Seed the process's own random generators: Python's, and numpy's once it is imported.

    Args:
        set_seed: True for fresh entropy, False to leave them alone.
        index: The process's in its simulation.
        incarnation: How often it was restarted: it must not draw the same numbers again.
    """
    if set_seed is False:
        return
    if set_seed is True:
        random.seed()
        if "numpy" in sys.modules:  # if it is imported later, it seeds itself
            sys.modules["numpy"].random.seed()
        return
    own, seed = process_seeds(set_seed, index, incarnation)
    random.seed(own)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(seed)
    else:
        sys.meta_path.insert(0, _SeedsNumpy(seed))


def process_seeds(seed: int, index: int, incarnation: int = 0) -> tuple[int, int]:
    """What seeds a process's own generators, Python's and numpy's, where there is a ``seed``."""
    again = f"/{incarnation}" if incarnation else ""
    generator = random.Random(f"{seed}/{index}{again}")
    return generator.getrandbits(64), generator.getrandbits(32)


class _SeedsNumpy:
    """Seeds numpy's own generator when it is imported: an import takes long, and few need it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != "numpy.random":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_seed(module: ModuleType) -> None:
                execute(module)
                module.seed(self._seed)

            spec.loader.exec_module = execute_and_seed  # type: ignore[method-assign]
        return spec
