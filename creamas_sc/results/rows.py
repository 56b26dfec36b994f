"""What was observed in a step, as rows of the record's tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any, Final

from creamas_sc.results.columns import Column, join
from creamas_sc.results.describing import NumberOf, number_cell
from creamas_sc.results.observing import Observed
from creamas_sc.rpc.rounds.order import Order, runs_of, sort_key, text_of

# Sets of agents that are remembered; each may be large.
_KEPT: Final = 16

Numbers = Mapping[str, Sequence[Order]]
Rows = dict[str, list[tuple[Any, ...]]]


class AgentRows:
    """The rows of what agents are observed to be, in the order of their numbers."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._next_id = 1
        # The agents of the last step, their ``numbers`` as JSON, and their order if it is another.
        self._last: tuple[list[Sequence[Order]], str, list[int] | None] = ([], "[]", None)

    def state(self) -> dict[str, Any]:
        """What it goes by, for `go_on`."""
        return {"ids": dict(self._ids), "next": self._next_id}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Go on as the one that had this state."""
        self._ids, self._next_id = dict(state["ids"]), state["next"]

    def of_step(self, step: int, observed: Mapping[str, Observed], numbers: Numbers) -> Rows:
        """The rows of a step, for the tables ``agents`` and ``numbers``."""
        rows: Rows = {"numbers": [], "agents": []}
        by_name: dict[str, list[tuple[Sequence[Order], Column]]] = {}
        # In an order that the moments of arrival do not change.
        for url in sorted(observed, key=lambda url: sort_key(next(iter(numbers[url]), ()))):
            each, of_url = observed[url], numbers[url]
            for positions, columns in each.parts:
                agents = of_url if positions is None else [of_url[at] for at in positions]
                for name, column in columns.items():
                    by_name.setdefault(name, []).append((agents, column))
        for name in sorted(by_name):
            parts = by_name[name]
            text, order = self._ordered([agents for agents, _ in parts])
            form, data = join([column for _, column in parts], order)
            rows["agents"].append((step, name, self._id(text, step, rows), form, data))
        return rows

    def _ordered(self, parts: list[Sequence[Order]]) -> tuple[str, list[int] | None]:
        """Their numbers as JSON, in ascending order, and which comes first, second ..."""
        # The same lists hold the same numbers: a slave that has others sends another list.
        if len(parts) != len(self._last[0]) or not all(map(is_, parts, self._last[0])):
            agents = [agent for part in parts for agent in part]
            order = sorted(range(len(agents)), key=lambda at: sort_key(agents[at]))
            numbers = [agents[at] for at in order]
            runs = [text_of(run) if type(run) is tuple else run for run in runs_of(numbers)]
            self._last = parts, json.dumps(runs), None if numbers == agents else order
        return self._last[1:]

    def _id(self, text: str, step: int, rows: Rows) -> int:
        found = self._ids.get(text)
        if found is None:
            if len(self._ids) >= _KEPT:
                self._ids.clear()
            found = self._ids[text] = self._next_id
            self._next_id += 1
            rows["numbers"].append((found, step, text))
        return found


def of_connections(
    step: int, observed: Mapping[str, Observed], numbers: Numbers, number_of: NumberOf
) -> list[tuple[Any, ...]]:
    """The rows of the table ``connections``."""
    by_agent: list[tuple[Order, list[tuple[str, str]]]] = []
    for url, each in observed.items():
        by_agent += [(numbers[url][at], known) for at, known in each.connections.items()]
    by_agent.sort(key=lambda pair: sort_key(pair[0]))
    rows: list[tuple[Any, ...]] = []
    for agent, known in by_agent:
        cell = number_cell(agent)
        rows += [(step, cell, _other(addr, number_of), data) for addr, data in known]
        if not known:
            rows.append((step, cell, None, None))
    return rows


def _other(addr: str, number_of: NumberOf) -> int | str | None:
    number = number_of(addr)
    return addr if number is None else number_cell(number)


def numbers_from(text: str) -> list[int | str]:
    """The numbers of a row of the table ``numbers``."""
    numbers: list[int | str] = []
    for run in json.loads(text):
        if isinstance(run, list):
            numbers += range(run[0], run[0] + run[1])
        else:
            numbers.append(run)
    return numbers


def agent_key(cell: Any) -> tuple[float, ...]:
    """What sorts cells of agents by their numbers; what is none comes last."""
    if isinstance(cell, int):
        return (cell,)
    if isinstance(cell, str) and cell.replace(".", "").isdigit():
        return tuple(map(int, cell.split(".")))
    return (math.inf,)
