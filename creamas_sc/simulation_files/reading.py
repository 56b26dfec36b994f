"""Reads files of simulations; each refusal has the file, the line and the key."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from creamas_sc.core.randomness import check_seed
from creamas_sc.errors import BadValue, CreamasError
from creamas_sc.mp.placing import check_places_to_run
from creamas_sc.nodes import Nodes
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.results.record import Record
from creamas_sc.rpc.rounds.plan import check_calls
from creamas_sc.simulation_files.connecting import check_graph
from creamas_sc.simulation_files.names import Classes, address
from creamas_sc.simulation_files.plan import Batch, Connections, Plan
from creamas_sc.simulation_files.source import Key, Source

_Whole = Annotated[int, Meta(ge=1)]
_Arguments = dict[str, Any]
# The tables and keys that may differ between the runs of a study.
_MAY_CHANGE = ("calls", "restart", "environment", "slaves", "agents", "connections")


class _Table(Struct, forbid_unknown_fields=True, kw_only=True):
    """A table that has these keys and no others."""


class _Restart(_Table):
    mode: str
    restarts: int = RestartPolicy.restarts
    seconds: float = RestartPolicy.seconds


class _Environment(_Table):
    cls: str | None = field(name="class", default=None)
    environment: str | None = None
    manager: str | None = None
    address: str | None = None
    arguments: _Arguments | None = None


class _Slaves(_Table):
    number: _Whole | None = None
    addresses: list[str] | None = None
    environment: str | None = None
    manager: str | None = None
    arguments: _Arguments | list[_Arguments] | None = None
    place: str | list[str] | None = None
    nodes: _Whole | None = None


class _Agents(_Table):
    cls: str = field(name="class")
    number: _Whole
    arguments: _Arguments = {}


class _Connections(_Table):
    graph: str | None = None
    arguments: _Arguments = {}
    random: _Whole | None = None


class _Record(_Table):
    folder: str | None = None
    metrics: str | None = None
    observe_every: _Whole = 1
    connections_every: _Whole | None = None
    checkpoint_every: _Whole | None = None
    checkpoint_seconds: float | None = None
    checkpoints_kept: _Whole = 2


class _Simulation(_Table):
    slaves: _Slaves
    agents: dict[str, Any] = {}
    folder: str = "."
    seed: Annotated[int, Meta(ge=0)] | None = None
    calls: str | None = None
    restart: str | _Restart | None = None
    steps: _Whole | None = None
    environment: _Environment = field(default_factory=_Environment)
    connections: _Connections | None = None
    record: _Record | None = None
    study: Any = None


class SimulationFile:
    """A simulation's file.

    Attributes:
        source: Its text.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SimulationFile:
        """Read a file.

        Raises:
            BadValue: It cannot be read, or is not TOML.
        """
        return cls(Source.read(Path(path)))

    @property
    def about(self) -> str:
        """All that a study's runs depend on but the parameters, as JSON, wherever the file is."""
        left_out = ("study", "seed", "steps")
        about = {key: value for key, value in self.source.document.items() if key not in left_out}
        return json.dumps(about, sort_keys=True, default=str)

    def plan(self, changes: Mapping[str, Any] | None = None) -> Plan:
        """What is to be made.

        Args:
            changes: Of a study's run: values by parameter, in place of those of the file.

        Raises:
            BadValue: The file or a change is not valid; the message says where.
        """
        document = deepcopy(self.source.document)
        for name, value in (changes or {}).items():
            self._change(document, name, value)
        return _Reader(self.source, document, changes is not None).plan()

    def _change(self, document: dict[str, Any], name: str, value: Any) -> None:
        key = tuple(name.split("."))
        if key[0] not in _MAY_CHANGE or (
            key[0] == "agents" and (len(key) < 3 or key[1] not in document.get("agents", {}))
        ):
            raise BadValue(
                f"{name} is no parameter: neither a key of {self.source.path} that may differ "
                "between runs, nor an argument of its agents"
            )
        if key[0] == "agents" and key[2] not in ("class", "number", "arguments"):
            key = (*key[:2], "arguments", *key[2:])
        at: Any = document
        for part in key[:-1]:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise self.source.refusal(key[:-1], "is no table, so it has no keys")
        at[key[-1]] = value


class _Reader:
    """Reads one document."""

    def __init__(self, source: Source, document: dict[str, Any], in_study: bool) -> None:
        self._source, self._in_study = source, in_study
        self._found = found = source.convert(document, _Simulation)
        self._folder = Path(os.path.abspath(source.path.parent / found.folder))
        if not self._folder.is_dir():
            raise source.refusal(("folder",), f"there is no folder {self._folder}")
        self._classes = Classes(self._folder)

    def plan(self) -> Plan:
        found, place = self._found, self._found.environment
        slaves = self._slaves()
        arguments = {
            "menv_cls": self._class(("environment", "class"), place.cls),
            "addr": self._address(("environment", "address"), place.address),
            "env_cls": self._class(("environment", "environment"), place.environment),
            "mgr_cls": self._class(("environment", "manager"), place.manager),
            "env_kwargs": place.arguments,
            "seed": self._checked(("seed",), lambda: check_seed(found.seed)),
            "calls": found.calls and self._checked(("calls",), self._calls),
            "restart": self._checked(("restart",), self._policy),
            "record": self._record(),
            **slaves,
        }
        agents = [self._batch(name, value) for name, value in found.agents.items()]
        if agents:
            arguments["agent_classes"] = [batch.cls for batch in agents]
        return Plan(
            {key: value for key, value in arguments.items() if value is not None},
            agents,
            self._connections(),
            found.steps,
            self._folder,
            self._classes.folders,
        )

    def _slaves(self) -> dict[str, Any]:
        found = self._found.slaves
        if (found.number is None) == (found.addresses is None):
            raise self._source.refusal(("slaves",), "must have either number or addresses")
        addresses: list[Any] = [("localhost", 0)] * (found.number or 0)
        for text in found.addresses or ():
            addresses.append(self._address(("slaves", "addresses"), text))
        if not addresses:
            raise self._source.refusal(("slaves", "addresses"), "there must be one at least")
        arguments = found.arguments
        if isinstance(arguments, dict):
            arguments = [arguments] * len(addresses)
        if arguments is not None and len(arguments) != len(addresses):
            why = f"there are {len(arguments)} tables for {len(addresses)} slaves"
            raise self._source.refusal(("slaves", "arguments"), why)
        return {
            "slave_addrs": addresses,
            "slave_env_cls": self._class(("slaves", "environment"), found.environment),
            "slave_mgr_cls": self._class(("slaves", "manager"), found.manager),
            "slave_kwargs": arguments,
            "place": self._checked(("slaves", "place"), lambda: self._place(len(addresses))),
            "nodes": None if found.nodes is None else Nodes(count=found.nodes),
        }

    def _place(self, slaves: int) -> str | list[str] | None:
        place = self._found.slaves.place
        check_places_to_run(place, slaves)
        return place

    def _batch(self, name: str, value: Any) -> Batch:
        found = self._source.convert(value, _Agents, ("agents", name))
        cls = self._class(("agents", name, "class"), found.cls)
        return Batch(str(cls), found.number, found.arguments)

    def _connections(self) -> Connections | None:
        found = self._found.connections
        if found is None:
            return None
        if (found.graph is None) == (found.random is None):
            raise self._source.refusal(("connections",), "must have either graph or random")
        place = str(self._source.refusal(("connections", "graph"), ""))
        made = Connections(found.graph, found.arguments, found.random or 0, place)
        if found.graph is not None:
            self._checked(("connections", "graph"), lambda: check_graph(made))
        elif found.arguments:
            why = "are those of a graph, and there is none"
            raise self._source.refusal(("connections", "arguments"), why)
        return made

    def _record(self) -> Record | None:
        found = self._found.record
        if found is None:
            return None
        if found.folder is None and not self._in_study:
            raise self._source.refusal(("record", "folder"), "is missing")
        return Record(
            self._folder / (found.folder or ""),
            self._class(("record", "metrics"), found.metrics),
            observe_every=found.observe_every,
            connections_every=found.connections_every,
            checkpoint_every=found.checkpoint_every,
            checkpoint_seconds=found.checkpoint_seconds,
            checkpoints_kept=found.checkpoints_kept,
        )

    def _policy(self) -> RestartPolicy | None:
        found = self._found.restart
        if isinstance(found, _Restart):
            return RestartPolicy(found.mode, found.restarts, found.seconds)
        return None if found is None else RestartPolicy.of(found)

    def _calls(self) -> str | None:
        check_calls(self._found.calls)
        return self._found.calls

    def _class(self, key: Key, text: str | None) -> str | None:
        return None if text is None else self._checked(key, lambda: self._classes.name(text))

    def _address(self, key: Key, text: str | None) -> tuple[str, int] | None:
        return None if text is None else self._checked(key, lambda: address(text))

    def _checked(self, key: Key, check: Callable[[], Any]) -> Any:
        try:
            return check()
        except (CreamasError, ValueError, ImportError) as error:
            raise self._source.refusal(key, str(error).removeprefix(f"{key[-1]} ")) from None
