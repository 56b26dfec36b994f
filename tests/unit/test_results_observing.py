"""What is observed of agents, as columns: alike, mixed, failing, and their connections."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import pytest

from creamas_sc.errors import AgentError, from_wire
from creamas_sc.results.columns import unpack
from creamas_sc.results.observing import Asked, Observed, observe
from creamas_sc.wire.codec import Codec

ASKED = Asked(3)


class Plain:
    """An agent that cannot be observed."""

    def __init__(self, number: int, known: dict[str, Any] | None = None) -> None:
        self._number = number
        self._known = known
        self.addr = f"tcp://localhost:1/{number}"


class Seen(Plain):
    """One that can."""

    def __init__(self, number: int, look: Callable[[], Any]) -> None:
        super().__init__(number)
        self.look = look

    def observe(self) -> Any:
        return self.look()


def seen(*rows: Any) -> list[Seen]:
    return [Seen(number, partial(copy, row)) for number, row in enumerate(rows, 1)]


def columns_of(observed: Observed) -> list[tuple[Any, dict[str, list[Any]]]]:
    return [
        (at, {name: list(unpack(column)) for name, column in columns.items()})
        for at, columns in observed.parts
    ]


def errors_of(observed: Observed) -> dict[str, str]:
    errors: list[Any] = [from_wire(error) for error in observed.errors]
    assert all(type(error) is AgentError for error in errors)
    return {error.address: error.message for error in errors}


def test_agents_that_are_alike_are_one_part() -> None:
    observed = observe(seen({"x": 1.0, "y": "a"}, {"y": "b", "x": 2.0}), ASKED, set())
    assert columns_of(observed) == [(None, {"x": [1.0, 2.0], "y": ["a", "b"]})]
    assert observed.step == 3
    assert not observed.errors


def test_those_without_the_method_are_left_out() -> None:
    agents = [Plain(1), *seen({"x": 1}), Plain(3)]
    assert columns_of(observe(agents, ASKED, set())) == [([1], {"x": [1]})]
    assert observe([Plain(1)], ASKED, set()).is_empty


def test_those_with_other_names_are_other_parts() -> None:
    agents = seen({"x": 1}, {"y": 2}, {"x": 3}, {})
    assert columns_of(observe(agents, ASKED, set())) == [
        ([0, 2], {"x": [1, 3]}),
        ([1], {"y": [2]}),
    ]


def test_numpy_scalars_are_plain() -> None:
    observed = observe(seen({"x": np.float64(1.5)}, {"x": np.float64(2.5)}), ASKED, set())
    assert [column.form for column in observed.parts[0].columns.values()] == ["d"]


async def _coroutine() -> dict[str, float]:
    return {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "observe must return a dict of names and values, not list"),
        (None, "observe must return a dict of names and values, not NoneType"),
        ({1: 2}, "observe must return a dict with names as keys, not 1"),
        ({"x": 2, "step": 5}, "observe: 'step' is a column of the table already: use another name"),
        ({"x": [2]}, "observe: 'x' must be an int, float, str, bool or None, not list"),
    ],
)
def test_what_cannot_be_a_column_is_an_error_of_its_agent(row: Any, message: str) -> None:
    observed = observe(seen({"x": 1}, row), ASKED, set())
    assert errors_of(observed) == {"tcp://localhost:1/2": message}
    assert columns_of(observed) == [([0], {"x": [1]})]


@pytest.mark.parametrize("name", ["run", "step", "agent"])
def test_no_name_takes_the_place_of_a_column_of_the_table(name: str) -> None:
    observed = observe(seen({name: 1}, {name: 2}), ASKED, set())
    assert len(errors_of(observed)) == 2
    assert columns_of(observed) == []


def test_an_async_observe_is_an_error() -> None:
    observed = observe([Seen(1, _coroutine)], ASKED, set())
    assert errors_of(observed) == {
        "tcp://localhost:1/1": "observe must be a plain method, not an async one"
    }


def test_an_agent_that_raises_costs_the_others_nothing() -> None:
    def fail() -> None:
        raise SystemExit("no")

    observed = observe([*seen({"x": 1}), Seen(2, fail), Seen(3, lambda: {"x": 3})], ASKED, set())
    assert list(errors_of(observed)) == ["tcp://localhost:1/2"]
    assert columns_of(observed) == [([0, 2], {"x": [1, 3]})]


def test_agents_are_observed_only_when_asked() -> None:
    assert observe(seen({"x": 1}), Asked(1, agents=False), set()).is_empty


def test_connections_of_all_at_first_and_then_of_those_that_changed() -> None:
    agents = [Plain(1, {"tcp://b/1": {"w": 1}}), Plain(2), Plain(3, {"tcp://b/2": {}})]
    everything = {0: [("tcp://b/1", '{"w":1}')], 2: [("tcp://b/2", "{}")]}
    assert observe(agents, ASKED, None).connections == everything
    assert observe(agents, ASKED, set()).connections == {}
    assert observe(agents, ASKED, {2, 3}).connections == {1: [], 2: [("tcp://b/2", "{}")]}
    assert observe(agents, Asked(1, connections=True), set()).connections == everything


def test_it_travels() -> None:
    observed = observe([Plain(1, {"tcp://b/1": {}}), *seen({"x": 1.0}, 5)], ASKED, None)
    codec = Codec()
    found = Observed.from_wire(codec.decode(codec.encode(observed.to_wire())))
    assert columns_of(found) == columns_of(observed)
    assert found.connections == observed.connections
    assert errors_of(found) == errors_of(observed)
