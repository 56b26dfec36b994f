"""Parts of a run's record, for what shows it: never a whole table at a time.

Other than the tables of `creamas_sc.results.Results`, these are read again and again while the run
goes on, and each time only what is new. Of a run that was resumed at an earlier step all is read
again. All calls block, and one thread at a time makes them.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from creamas_sc.errors import CreamasError
from creamas_sc.results.artifact_views import LOOK_BYTES, score, view
from creamas_sc.results.columns import Column, unpack
from creamas_sc.results.curves import MOST_BUCKETS, Curve
from creamas_sc.results.recorded_runs import RecordedObjects, RecordedRun
from creamas_sc.results.rows import agent_key, numbers_from

# Rows that are read at a time.
ROWS: Final = 20_000
MOST_METRICS: Final = 64
MOST_EDGES: Final = 300_000
# A file that was not written for so long, and has no end, is one of a run that was killed.
QUIET_SECONDS: Final = 30.0
_VIEWED: Final = (
    *("artifact", "step", "agent", "creator", "class", "domain"),
    *("evaluations", "framings", "features", "object_class"),
)
_METRIC: Final = "metric"
_MEAN: Final = "agents' mean"
_STEPS: Final = "steps"


class _Steps(NamedTuple):
    """What steps come to: the last one, the age then, how many acts failed, whether all repeat."""

    last: int = 0
    age: int | None = None
    errors: int = 0
    repeatable: bool | None = None


class RunParts:
    """Of one run.

    Args:
        buckets: How many values there may be of each metric; see `Curve`.

    Attributes:
        curves: Name of a metric -> what kind of metric it is, and its values.
    """

    def __init__(self, run: RecordedRun, buckets: int = MOST_BUCKETS) -> None:
        self.name = run.name
        self.curves: dict[str, tuple[str, Curve]] = {}
        self._run, self._buckets = run, buckets
        # The last rows that were read.
        self._metrics = self._agents = self._step = 0
        self._artifacts = -1
        self._steps = _Steps()
        self._about: dict[str, Any] = {}
        # How the files were when that was read.
        self._seen: list[tuple[int, int]] = []

    # ---- the run

    def about(self) -> dict[str, Any]:
        """What it is and how far: plain values, read again once its files have changed."""
        seen = self._files()
        if self._about and self._seen == seen:
            return self._about
        query = 'SELECT "class", seed, parameters, setup, began, ended FROM run'
        ((kind, seed, parameters, setup, began, ended),) = self._run.select(query)
        steps = self._read_steps()
        lately = "SELECT began, seconds, acts FROM steps ORDER BY step DESC LIMIT 20"
        recent = self._run.select(lately)
        self._seen = seen
        self._about = {
            "run": self.name,
            "class": kind,
            "seed": seed,
            "parameters": json.loads(parameters or "{}"),
            "slaves": json.loads(setup or "{}").get("slaves"),
            "began": began,
            "ended": ended,
            "steps": steps.last,
            "last_step": steps.last,
            "age": steps.age,
            "artifacts": self._count(),
            "failed_acts": steps.errors,
            "repeatable": steps.repeatable,
            "agents": recent[0][2] if recent else None,
            **_speed(recent),
        }
        return self._about

    def _read_steps(self) -> _Steps:
        """What all steps come to; only those that are new are read."""
        ((last,),) = self._run.select("SELECT MAX(step) FROM steps")
        known = self._steps if (last or 0) >= self._steps.last else _Steps()
        query = "SELECT MAX(step), MAX(age), SUM(errors), MIN(repeatable) FROM steps WHERE step > ?"
        ((last, age, errors, repeatable),) = self._run.select(query, (known.last,))
        if last is not None:
            marks = [mark for mark in (known.repeatable, repeatable) if mark is not None]
            repeats = bool(min(marks)) if marks else None
            known = _Steps(last, age, known.errors + (errors or 0), repeats)
        self._steps = known
        return known

    def _count(self) -> int:
        """How many artifacts there are."""
        ((last,),) = self._run.select("SELECT MAX(artifact) FROM artifacts")
        return 0 if last is None else int(last) + 1

    def is_written(self) -> bool:
        """Whether it goes on, as far as can be known from its files."""
        if self.about()["ended"] is not None:
            return False
        written = max((when for when, _ in self._files()), default=0)
        return time.time() - written / 1e9 < QUIET_SECONDS

    def _files(self) -> list[tuple[int, int]]:
        """When each of its files was changed, in nanoseconds, and the size."""
        found = []
        for name in (self._run.path.name, f"{self._run.path.name}-wal"):
            with suppress(FileNotFoundError):
                status = os.stat(self._run.path.with_name(name))
                found.append((status.st_mtime_ns, status.st_size))
        return found

    def events(self, limit: int) -> list[tuple[float, str, dict[str, Any]]]:
        """The last events, newest first: time, name and details."""
        query = "SELECT time, event, details FROM events ORDER BY rowid DESC LIMIT ?"
        rows = self._run.select(query, (limit,))
        return [(when, event, json.loads(details or "{}")) for when, event, details in rows]

    # ---- metrics

    def read_metrics(self) -> None:
        """Take what is new into ``curves``."""
        if self.about()["last_step"] < self._step:
            self.curves, self._artifacts = {}, -1
            self._metrics = self._agents = self._step = 0
        known = self._step
        query = (
            "SELECT rowid, step, name, value FROM metrics WHERE rowid > ? ORDER BY rowid LIMIT ?"
        )
        while rows := self._run.select(query, (self._metrics, ROWS)):
            self._metrics = rows[-1][0]
            for _, step, name, value in rows:
                self._add(name, _METRIC, step, value)
        query = (
            'SELECT rowid, step, name, form, "values" FROM agents WHERE rowid > ? '
            "ORDER BY rowid LIMIT 500"
        )
        while rows := self._run.select(query, (self._agents,)):
            self._agents = rows[-1][0]
            for _, step, name, form, values in rows:
                self._add(name, _MEAN, step, _mean(unpack(Column(form, values))))
        query = "SELECT step, seconds, acts, errors FROM steps WHERE step > ? ORDER BY step LIMIT ?"
        while rows := self._run.select(query, (self._step, ROWS)):
            self._step = rows[-1][0]
            for step, *values in rows:
                for name, value in zip(("seconds", "acts", "errors"), values, strict=True):
                    self._add(name, _STEPS, step, value)
        self._count_artifacts(known)

    def _count_artifacts(self, known: int) -> None:
        """Add how many artifacts each whole step after ``known`` has, once there are any."""
        query = (
            "SELECT artifact, step FROM artifacts WHERE artifact > ? AND step <= ? "
            "ORDER BY artifact LIMIT ?"
        )
        counts: Counter[int] = Counter()
        while rows := self._run.select(query, (self._artifacts, self._step, ROWS)):
            self._artifacts = rows[-1][0]
            counts.update(step for _, step in rows)
        if "artifacts" not in self.curves:
            if not counts:
                return
            known = 0
        for step in range(known + 1, self._step + 1):
            self._add("artifacts", _STEPS, step, counts[step])

    def _add(self, name: str, kind: str, step: int, value: Any) -> None:
        if not isinstance(value, (int, float)):
            return
        found = self.curves.get(name)
        if found is None:
            if len(self.curves) >= MOST_METRICS:
                return
            found = self.curves[name] = kind, Curve(self._buckets)
        if found[0] == kind:
            found[1].add(step, value)

    # ---- artifacts

    def scores(self, since: int, limit: int) -> dict[str, Any]:
        """As `creamas_sc.results.artifact_views.ArtifactViews.scores`."""
        query = (
            "SELECT step, creator, evaluations FROM artifacts WHERE artifact >= ? "
            "ORDER BY artifact LIMIT ?"
        )
        rows = self._run.select(query, (since, limit))
        return {
            "total": self._count(),
            "step": [step for step, _, _ in rows],
            "agent": [creator or "" for _, creator, _ in rows],
            "score": [score(_loads(text).values()) for _, _, text in rows],
        }

    def views(self, numbers: Iterable[int], whole: bool, side: int) -> list[dict[str, Any]]:
        """As `creamas_sc.results.artifact_views.ArtifactViews.views`."""
        numbers = list(numbers)
        marks = ", ".join("?" * len(numbers))
        columns = ", ".join(_VIEWED)
        query = f"SELECT {columns}, object, file FROM artifacts WHERE artifact IN ({marks})"
        found = {row[0]: row for row in self._run.select(query, numbers)}
        left, views = LOOK_BYTES, []
        for row in (found[number] for number in numbers if number in found):
            fields = dict(zip(_VIEWED, row, strict=False))
            for name in ("evaluations", "framings", "features"):
                fields[name] = _loads(fields[name])
            made = view(
                fields, self._object(fields["object_class"], *row[-2:]), whole=whole, side=side
            )
            if made["look"] is not None:
                left -= len(made["look"].data)
                made["look"] = tuple(made["look"]) if left >= 0 else None
            views.append(made)
        return views

    def _object(self, kind: str | None, data: bytes | None, file: str | None) -> Any:
        try:
            return RecordedObjects([data], [file], [self._run.path.parent])[0]
        except (CreamasError, OSError) as error:  # its class is not here, say
            return f"{kind}, which cannot be shown here: {error}"

    # ---- the society

    def society(self, step: int | None) -> tuple[list[str], list[tuple[str, str, Any]]]:
        """Agents and connections of a step (None: of the last): labels; and from, to and data."""
        last = 2**62 if step is None else step
        query = "SELECT agents FROM numbers WHERE step <= ? ORDER BY id DESC LIMIT 8"
        agents = [
            str(n) for (text,) in self._run.select(query, (last,)) for n in numbers_from(text)
        ]
        query = (
            "SELECT DISTINCT creator FROM artifacts "
            "WHERE agent IS NOT NULL AND step <= ? LIMIT 10000"
        )
        agents += [creator for (creator,) in self._run.select(query, (last,))]
        query = (
            "SELECT agent, other, data FROM connections JOIN "
            "(SELECT agent AS a, MAX(step) AS s FROM connections WHERE step <= ? GROUP BY agent) "
            "ON agent IS a AND step = s LIMIT ?"
        )
        rows = self._run.select(query, (last, MOST_EDGES))
        agents += [str(agent) for agent, _, _ in rows]
        edges = [
            (str(agent), str(other), None if data is None else json.loads(data))
            for agent, other, data in rows
            if other is not None
        ]
        return sorted(dict.fromkeys(agents), key=agent_key), edges


def _loads(text: str | None) -> dict[str, Any]:
    return json.loads(text) if text else {}


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [value for value in values if isinstance(value, (int, float)) and value == value]
    try:
        return sum(numbers) / len(numbers) if numbers else None
    except OverflowError:  # an int that no float is as large as
        return None


def _speed(recent: Sequence[tuple[Any, ...]]) -> dict[str, float | None]:
    """Steps and acts a second over the last steps: when each began, its seconds, its acts."""
    if len(recent) < 2:
        return {"steps_per_second": None, "acts_per_second": None}
    seconds = recent[0][0] + recent[0][1] - recent[-1][0]
    acts = sum(each[2] or 0 for each in recent)
    if seconds <= 0:
        return {"steps_per_second": None, "acts_per_second": None}
    return {"steps_per_second": len(recent) / seconds, "acts_per_second": acts / seconds}
