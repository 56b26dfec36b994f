"""What is observed of an environment's agents at the end of a step: as columns, without any I/O.

An agent's optional method ``observe()`` returns a dict of names and scalars. All agents of an
environment are observed where they live, and what they return leaves as columns, with the answer to
the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from creamas_sc.errors import AgentError, to_wire
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.results.columns import Column, pack, scalar, to_json
from creamas_sc.runtime.gc_control import gc_paused

# The table of agents has these columns of its own.
_TAKEN: Final = frozenset({"run", "step", "agent"})


class Asked(NamedTuple):
    """What is to be observed in a step.

    Attributes:
        step: Its number in the record.
        agents: Whether the agents are.
        connections: Whether the connections of all agents are, rather than of those where they have
            changed.
    """

    step: int
    agents: bool = True
    connections: bool = False


class Part(NamedTuple):
    """Columns of some of an environment's agents.

    Attributes:
        positions: Which agents, of all but the manager; None for each of them.
    """

    positions: list[int] | None
    columns: dict[str, Column]


class Observed(NamedTuple):
    """What was observed in one environment.

    Attributes:
        step: As it was asked for.
        parts: No name is in two of them for one agent.
        connections: Position of an agent -> its connections: addresses, and their data as JSON.
        errors: What ``observe`` raised, described by `to_wire`.
    """

    step: int
    parts: list[Part]
    connections: dict[int, list[tuple[str, str]]]
    errors: list[dict[str, Any]]

    @classmethod
    def from_wire(cls, value: Any) -> Observed:
        """What was sent as plain tuples."""
        step, parts, connections, errors = value
        parts = [
            Part(at, {name: Column(*column) for name, column in columns.items()})
            for at, columns in parts
        ]
        return cls(step, parts, dict(connections), errors)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self.parts or self.connections or self.errors)

    def to_wire(self) -> tuple[Any, ...]:
        """The same as plain tuples."""
        parts = [
            (at, {name: tuple(column) for name, column in columns.items()})
            for at, columns in self.parts
        ]
        return self.step, parts, list(self.connections.items()), self.errors


def observe(agents: Sequence[Any], asked: Asked, changed: set[int] | None) -> Observed:
    """Observe agents; what fails is described in the result.

    Args:
        agents: All of an environment but its manager.
        changed: Numbers, in the environment, of those whose connections have changed since the last
            time; None for all.
    """
    parts: list[Part] = []
    errors: list[dict[str, Any]] = []
    if asked.agents:
        parts = _observe_agents(agents, errors)
    connections = {
        position: [(addr, to_json(data)) for addr, data in (agent._known or {}).items()]
        for position, agent in _connected(agents, None if asked.connections else changed)
    }
    return Observed(asked.step, parts, connections, errors)


def _connected(agents: Sequence[Any], changed: set[int] | None) -> list[tuple[int, Any]]:
    if changed is None:
        return [(at, agent) for at, agent in enumerate(agents) if getattr(agent, "_known", None)]
    if not changed:
        return []
    return [(at, agent) for at, agent in enumerate(agents) if agent._number in changed]


def _observe_agents(agents: Sequence[Any], errors: list[dict[str, Any]]) -> list[Part]:
    kinds = set(map(type, agents))
    observed = {kind for kind in kinds if callable(getattr(kind, "observe", None))}
    if not observed:
        return []
    positions: Sequence[int] = range(len(agents))
    if observed != kinds:
        positions = [at for at in positions if type(agents[at]) in observed]
        agents = [agents[at] for at in positions]
    rows: list[Any] = []
    failed: dict[int, BaseException] = {}
    append = rows.append
    with gc_paused():
        for agent in agents:
            try:
                append(agent.observe())
            except BaseException as error:  # user code may raise anything, SystemExit included
                if is_ctrl_c(error):
                    raise
                failed[len(rows)] = error
                append(None)
        if not failed:
            try:
                return [_part(positions, rows)]
            except (KeyError, TypeError):
                pass
        return _parts(agents, positions, rows, failed, errors)


def _checked(row: Any) -> dict[str, Any]:
    if hasattr(row, "items"):
        return dict(row.items())
    if hasattr(row, "close") and hasattr(row, "send"):
        row.close()  # a coroutine, that nobody is to await
        raise TypeError("observe must be a plain method, not an async one")
    raise TypeError(f"observe must return a dict of names and values, not {type(row).__name__}")


def _part(positions: Sequence[int], rows: Sequence[Any]) -> Part:
    """The columns of agents that all return the same names and plain values.

    Raises:
        KeyError, TypeError: They do not.
    """
    names = rows[0]
    if not (names and type(names) is dict and set(map(len, rows)) == {len(names)}):
        raise TypeError
    columns = {}
    for name in names:  # what is no dict cannot be asked for it
        if type(name) is not str or name in _TAKEN:
            raise TypeError
        columns[name] = pack(list(map(itemgetter(name), rows)))
    return Part(None if type(positions) is range else list(positions), columns)


def _parts(
    agents: Sequence[Any],
    positions: Sequence[int],
    rows: Sequence[Any],
    failed: Mapping[int, BaseException],
    errors: list[dict[str, Any]],
) -> list[Part]:
    """The columns of agents that differ in what they return: a part for each set of names."""
    by_names: dict[tuple[str, ...], tuple[list[int], list[dict[str, Any]]]] = {}
    for at, (agent, position, row) in enumerate(zip(agents, positions, rows, strict=True)):
        try:
            if at in failed:
                raise failed[at]
            plain_row = {_name(name): _scalar(name, value) for name, value in _checked(row).items()}
        except BaseException as error:
            errors.append(to_wire(AgentError.from_exception(agent.addr, error)))
            continue
        of_names = by_names.setdefault(tuple(plain_row), ([], []))
        of_names[0].append(position)
        of_names[1].append(plain_row)
    return [_part(at, same) for names, (at, same) in by_names.items() if names]


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"observe must return a dict with names as keys, not {name!r}")
    if name in _TAKEN:
        raise TypeError(f"observe: {name!r} is a column of the table already: use another name")
    return name


def _scalar(name: str, value: Any) -> Any:
    try:
        return scalar(value)
    except TypeError as error:
        raise TypeError(f"observe: {name!r} {error}") from None
