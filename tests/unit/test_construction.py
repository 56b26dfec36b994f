"""How environments are made: with our arguments, or as classes written for creamas want it."""

from __future__ import annotations

from typing import Any

import pytest

from creamas_sc import CreativeAgent, Environment, MsgPack
from creamas_sc.core.construction import make_environment, place_of
from creamas_sc.errors import CreamasError
from creamas_sc.mp import MultiEnvironment
from tests.support.values import pickled_tuples

PLACE = ("localhost", 5555)
URL = "tcp://localhost:5555/"


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def points() -> tuple[Any, ...]:
    return Point, vars, lambda state: Point(**state)


class Grid(Environment):
    """Has creamas' parameters, and one of its own."""

    def __init__(
        self, base_url: str, clock: Any, connect_kwargs: dict[str, Any], size: int = 3
    ) -> None:
        super().__init__(base_url, clock, connect_kwargs)
        self.size = size


class Named(Environment):
    """Passes all on by name, and needs no clock."""

    def __init__(self, base_url: str, connect_kwargs: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(base_url=base_url, connect_kwargs=connect_kwargs, **kwargs)


class Town(Environment):
    """Takes an address, and has a seed and a keyword argument of its own."""

    def __init__(self, addr: tuple[str, int], *, base_url: str = "none", **kwargs: Any) -> None:
        super().__init__(addr, **kwargs)
        self.town_url, self.seed = base_url, 17


def test_creamas_arguments() -> None:
    env = Environment(base_url=URL, clock=3, connect_kwargs={"codec": MsgPack, "ssl": None})
    assert (env.base_url, env.clock) == (URL, 3)
    assert Environment("tcp://localhost:5555", None, {}).base_url == URL
    assert Environment(PLACE).base_url == URL
    env = Environment(URL, connect_kwargs={"extra_serializers": [points]})
    assert env.network.codec.carries(Point)
    assert not Environment(URL).network.codec.carries(Point)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"needs addr: \(host, port\)"),
        ({"base_url": "localhost"}, "expected 'tcp://host:port/number'"),
        ({"addr": PLACE, "connect_kwargs": {"ssl": 1}}, "can hold codec and .*, not ssl"),
        ({"addr": PLACE, "connect_kwargs": {"codec": dict}}, "codec dict is not supported"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Environment(**arguments)


def test_where_from() -> None:
    assert place_of(None, "tcp://[::1]:0/") == ("::1", 0)
    assert place_of(["h", 1], None) == ("h", 1)


def test_classes_for_creamas_get_its_arguments() -> None:
    kwargs = {"codec": MsgPack, "extra_serializers": [points]}
    grid = make_environment(Grid, PLACE, (), {**kwargs, "size": 5})
    assert (grid.base_url, grid.size, grid.clock) == (URL, 5, None)
    assert grid.network.codec.carries(Point)
    assert make_environment(Grid, PLACE, (), {"clock": 3}).clock == 3
    named = make_environment(Named, PLACE, (), {**kwargs, "name": "mine"})
    assert (named.base_url, named.name) == (URL, "mine")
    assert make_environment(Town, PLACE, (), {"base_url": "town"}).town_url == "town"
    made = make_environment(Environment, PLACE, (), {"name": "mine"})
    assert (made.base_url, made.name) == (URL, "mine")


async def test_create_and_multi_environments_make_them_so() -> None:
    menv = MultiEnvironment(PLACE, Grid, size=7, extra_serializers=[points])
    assert menv.env.size == 7  # type: ignore[attr-defined]
    coroutine = Grid.create(PLACE, size=8, as_coro=True)
    coroutine.close()


def test_one_warning_for_needless_serializers() -> None:
    with pytest.warns(UserWarning, match="for tuple are ignored") as warned:
        MultiEnvironment(PLACE, Environment, extra_serializers=[pickled_tuples])
    assert len(warned) == 1


# ---- seeds


def test_seed_and_rng_can_be_set() -> None:
    env = Environment(PLACE)
    first = CreativeAgent(env)
    first.rng = "a generator"
    assert first.rng == "a generator"
    env.seed = 5
    one, two = CreativeAgent(env), CreativeAgent(env)
    assert env.seed == 5
    other = Environment(PLACE)
    other.seed = 5
    CreativeAgent(other)
    draws = [agent.rng.random() for agent in (one, two)]
    assert [CreativeAgent(other).rng.random() for _ in range(2)] == draws
    for wrong in (-1, 1.5, True, "x"):
        with pytest.raises(ValueError, match="seed must be an int of at least 0"):
            env.seed = wrong  # type: ignore[assignment]


def test_the_seed_of_a_multi_environment_can_be_set_before_its_slaves() -> None:
    menv = MultiEnvironment(PLACE, Town)
    assert menv.seed == 17, "which the environment's class has set"
    menv.seed = 6
    assert (menv.seed, menv.env.seed) == (6, 6)
    assert MultiEnvironment(PLACE, Town, seed=3).seed == 3
    menv._slaves.orders([("localhost", 0)], Environment, Environment, None)
    with pytest.raises(CreamasError, match="set seed before spawn_slaves"):
        menv.seed = 7
    assert menv.seed == 6
