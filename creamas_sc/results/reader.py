"""Reading records: of one run or many, also while they are written."""

from __future__ import annotations

import json
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from creamas_sc.errors import BadValue
from creamas_sc.results.columns import Column, to_json, unpack
from creamas_sc.results.plotting import lines, plot
from creamas_sc.results.recorded_runs import RecordedObjects, RecordedRun, find_runs
from creamas_sc.results.rows import agent_key, numbers_from
from creamas_sc.results.schema import COLUMNS, RUN
from creamas_sc.results.tables import Table, concat
from creamas_sc.runtime import html

_JSON: Final = frozenset(
    {
        *("parameters", "setup", "versions", "machine"),
        *("evaluations", "framings", "features", "data", "details", "why"),
    }
)
# Of metrics, of which only the latest are asked for.
LATEST_ROWS: Final = 5000
# Which of a table's rows: a value, a range, or several values.
Which = int | str | Container[Any] | None


def open(path: str | os.PathLike[str]) -> Results:
    """Open a record: a folder with the files of runs, or one of these files, or an experiment.

    It may be written meanwhile: each table holds the whole steps that there are when it is read.
    The objects of artifacts are decoded by classes that their names lead to: do not look at those
    of a record that you do not trust.

    Raises:
        FileNotFoundError: There is no such folder or file.
        BadValue: There are no runs, or the file is none of a run.
    """
    return Results(find_runs(path))


@dataclass(frozen=True)
class Results:
    """The runs of a record, and their tables; made by `open`.

    Each table is read when it is asked for. Its first column is ``run``, the name of the run; an
    ``agent`` is its number.
    """

    _runs: tuple[RecordedRun, ...]
    _steps: Which = None
    _agents: Which = None

    def __repr__(self) -> str:
        names = [run.name for run in self._runs]
        amount = "1 run" if len(names) == 1 else f"{len(names)} runs"
        if len(names) > 5:
            names[4:-1] = ["..."]
        return f"<Results of {amount}: {', '.join(names)}>"

    def _repr_html_(self) -> str:
        """For notebooks: a row for each run."""
        runs, steps = self.runs, Counter(self.steps["run"])
        head = ("run", "class", "seed", "parameters", "steps", "began", "ended")
        rows = []
        for run in runs.rows():
            moments = [None if run[name] is None else time.ctime(run[name]) for name in head[5:]]
            row = [run[name] for name in head[:3]]
            rows.append([*row, to_json(run["parameters"]), steps[run["run"]], *moments])
        return html.table(head, rows)

    def filter(self, *, run: Which = None, step: Which = None, agent: Which = None) -> Results:
        """Only a part of them; of what is None, all.

        Args:
            run: The name of a run, or several.
            step: A step, a range, or several.
            agent: An agent's number, or several: of tables with agents, only their rows.
        """
        runs = tuple(each for each in self._runs if run is None or _is_in(each.name, run))
        if not runs:
            asked = " nor ".join(map(repr, run)) if isinstance(run, (list, tuple)) else repr(run)
            names = ", ".join(each.name for each in self._runs)
            raise BadValue(f"there is no run {asked}; there are: {names}")
        return replace(
            self,
            _runs=runs,
            _steps=self._steps if step is None else step,
            _agents=self._agents if agent is None else agent,
        )

    @property
    def runs(self) -> Table:
        """The runs: class, parameters, seed, versions, code, machine, and when."""
        return self._read("run", RUN, lambda row: True)

    @property
    def steps(self) -> Table:
        """One row a step."""
        return self._read_table("steps")

    @property
    def metrics(self) -> Table:
        """One row a step, a column for each metric of the whole; None where there was none."""
        table = self._read_table("metrics")
        rows: dict[tuple[Any, Any], dict[str, Any]] = {}
        for run, step, name, value in zip(*table.values(), strict=True):
            rows.setdefault((run, step), {})[name] = value
        names = dict.fromkeys(table["name"])
        columns: dict[str, list[Any]] = {
            "run": [run for run, _ in rows],
            "step": [step for _, step in rows],
        }
        for name in names:
            columns[name] = [row.get(name) for row in rows.values()]
        return Table(columns)

    def latest_metrics(self, steps: int) -> dict[str, list[tuple[int, Any]]]:
        """Step and value of each metric in the last steps of the last run, without reading others.

        Args:
            steps: How many; fewer, if there are many metrics.
        """
        run = self._runs[-1]
        ((last,),) = run.select("SELECT MAX(step) FROM steps")
        rows = run.select(
            "SELECT step, name, value FROM metrics "
            "WHERE rowid > (SELECT MAX(rowid) FROM metrics) - ? ORDER BY rowid", [LATEST_ROWS],
        )  # fmt: skip
        found: dict[str, list[tuple[int, Any]]] = {}
        for step, name, value in rows:
            if last is not None and last - steps < step <= last:
                found.setdefault(name, []).append((step, value))
        return found

    @property
    def agents(self) -> Table:
        """One row for each step and agent, a column for each name that ``observe`` returned."""
        parts = [self._agents_of(run) for run in self._runs]
        names = list(dict.fromkeys(name for part in parts for name in part))
        columns: dict[str, Sequence[Any]] = {}
        for name in names:
            columns[name] = concat(
                [part.get(name, [None] * len(part["step"])) for part in parts if "step" in part]
            )
        return Table(columns)

    @property
    def artifacts(self) -> Table:
        """One row for each artifact; ``object`` has its object, decoded, when it is asked for."""
        table = dict(self._read_table("artifacts"))
        files = table.pop("file")
        paths = {run.name: run.path.parent for run in self._runs}
        places = [paths[run] for run in table["run"]]
        table["object"] = RecordedObjects(table["object"], files, places)
        return Table(table)

    @property
    def connections(self) -> Table:
        """From its step on, an agent's rows of that step are all its connections."""
        return self._read_table("connections")

    @property
    def events(self) -> Table:
        """What may have changed results: slaves that were lost and restarted, say."""
        return self._read_table("events")

    def plot(self, name: str, *, by: str | None = None, ax: Any = None) -> Any:
        """Plot a metric over the steps, by matplotlib; returns the axes.

        It is one of `metrics`, or else the mean over the agents of what they return by that name.

        Args:
            by: A parameter of the runs: those with the same value are one line, their mean, with a
                band of one standard deviation to each side. By default each run is a line.
            ax: Axes to draw on; by default those of a new figure, ``.figure`` of what is returned,
                which notebooks show.

        Raises:
            BadValue: There is no such metric or parameter.
            ImportError: matplotlib is not installed.
        """
        metrics = self.metrics
        agents = Table({}) if name in metrics else self.agents
        return plot(lines(metrics, agents, self.runs, name, by), name, ax)

    # ---- reading

    def _read_table(self, table: str) -> Table:
        columns = COLUMNS[table]
        step = columns.index("step")
        agent = columns.index("agent") if "agent" in columns else None

        def kept(row: tuple[Any, ...]) -> bool:
            return _is_in(row[step], self._steps) and (
                agent is None or _is_in(row[agent], self._agents)
            )

        return self._read(table, columns, kept)

    def _read(
        self, table: str, names: Sequence[str], kept: Callable[[tuple[Any, ...]], bool]
    ) -> Table:
        columns: list[list[Any]] = [[] for _ in range(len(names) + 1)]
        query = f"SELECT {', '.join(names)} FROM {table} ORDER BY rowid"
        for run in self._runs:
            rows = [row for row in run.select(query) if kept(row)]
            columns[0] += [run.name] * len(rows)
            for column, values in zip(columns[1:], zip(*rows, strict=True), strict=False):
                column += values
        for column, name in zip(columns[1:], names, strict=True):
            if name in _JSON:
                column[:] = [None if text is None else json.loads(text) for text in column]
        return Table(dict(zip(("run", *names), columns, strict=True)))

    def _agents_of(self, run: RecordedRun) -> dict[str, Sequence[Any]]:
        """The columns of what was observed of the agents in a run."""
        query = (
            'SELECT step, name, agents, form, "values" FROM agents '
            "JOIN numbers ON numbers = numbers.id ORDER BY agents.rowid"
        )
        steps: dict[int, list[tuple[str, str, Column]]] = {}
        for step, name, agents, form, values in run.select(query.replace("step,", "agents.step,")):
            if _is_in(step, self._steps):
                steps.setdefault(step, []).append((name, agents, Column(form, values)))
        numbers = _Numbers()
        blocks = [self._block(step, of_step, numbers) for step, of_step in steps.items()]
        names = list(dict.fromkeys(name for block in blocks for name in block))
        columns: dict[str, Sequence[Any]] = {"run": [], "step": [], "agent": []}
        for name in names:
            columns[name] = concat(
                [block.get(name, [None] * len(block["agent"])) for block in blocks]
            )
        columns["run"] = [run.name] * len(columns["step"])
        return columns

    def _block(
        self, step: int, columns: list[tuple[str, str, Column]], numbers: _Numbers
    ) -> dict[str, Sequence[Any]]:
        """The columns of a step: one row for each agent that was observed."""
        sets = list(dict.fromkeys(agents for _, agents, _ in columns))
        agents = numbers.of(sets[0]) if len(sets) == 1 else numbers.union(sets)
        block: dict[str, Sequence[Any]] = {"step": array("q", [step]) * len(agents)}
        block["agent"] = agents
        for name, of, column in columns:
            values = unpack(column)
            if len(sets) > 1:
                found = dict(zip(numbers.of(of), values, strict=True))
                values = [found.get(agent) for agent in agents]
            block[name] = values
        if self._agents is not None:
            at = [i for i, agent in enumerate(agents) if _is_in(agent, self._agents)]
            block = {name: [values[i] for i in at] for name, values in block.items()}
        return block


class _Numbers:
    """Sets of agents: a step has most often those of the step before."""

    def __init__(self) -> None:
        self._last: tuple[str, Sequence[Any]] = ("[]", array("q"))

    def of(self, text: str) -> Sequence[Any]:
        """The numbers of a set, in ascending order."""
        if self._last[0] != text:
            found: Sequence[Any] = numbers_from(text)
            if all(type(number) is int for number in found):
                found = array("q", found)
            self._last = text, found
        return self._last[1]

    def union(self, texts: Iterable[str]) -> Sequence[Any]:
        """The numbers of several sets, in ascending order."""
        return sorted({number for text in texts for number in self.of(text)}, key=agent_key)


def _is_in(value: Any, which: Which) -> bool:
    if which is None:
        return True
    if isinstance(which, (int, str)):
        return bool(value == which)
    return value in which
