"""Records, as a page shows them: of one run or many, while they are written and later."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import anyio
from anyio import to_thread

from creamas_sc.errors import BadValue
from creamas_sc.page.gallery import Gallery, Reader
from creamas_sc.page.metrics import metrics
from creamas_sc.page.society import Node, society
from creamas_sc.page.source import Asked, Emit, EventId, Json, PageError, Picture, Source
from creamas_sc.results.curves import MOST_BUCKETS
from creamas_sc.results.recorded_runs import find_runs
from creamas_sc.results.run_parts import RunParts
from creamas_sc.results.weights import weight

T = TypeVar("T")

POLL_SECONDS: Final = 1.0
# How often the folder is searched for new runs.
SEARCH_SECONDS: Final = 5.0
MOST_RUNS: Final = 1000
# Of all runs together, for each metric.
BUCKETS: Final = 200_000
MOST_EVENTS: Final = 20


class RecordSource(Source):
    """A folder of records, an experiment's, or one file.

    Args:
        path: Where it is.
        name: In the page's addresses; by default that of the folder.
    """

    kind = "record"

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.name = name or path.absolute().name
        self.path = path.absolute()
        self._runs: dict[str, RunParts] = {}
        self._galleries: dict[str, Gallery] = {}
        self._searched = -SEARCH_SECONDS
        # Files are read in one thread at a time.
        self._limiter = anyio.CapacityLimiter(1)

    @classmethod
    def open(cls, path: Path) -> RecordSource:
        """A record that there is.

        Raises:
            FileNotFoundError: There is no such folder or file.
            BadValue: There are no runs in it.
        """
        find_runs(path)
        return cls(path)

    # ---- how far it is

    async def state(self) -> Json:
        return await self._in_thread(self._state)

    def _state(self) -> Json:
        runs = self.parts()
        last = self._last()
        about = last.about()
        written = any(run.is_written() for run in runs)
        ended = all(run.about()["ended"] is not None for run in runs)
        names = ("age", "last_step", "failed_acts", "repeatable", "agents", "slaves", "artifacts")
        speed = ("steps_per_second", "acts_per_second")
        return {
            "name": self.name,
            "kind": self.kind,
            "reachable": True,
            "problem": "",
            "state": "stepping" if written else "ended" if ended else "unfinished",
            "step": about["steps"],
            "of": None,
            "pausing": False,
            **{name: about[name] for name in names},
            **{name: about[name] if last.is_written() else None for name in speed},
            **dict.fromkeys(("seconds_left", "step_seconds", "restarts", "clients")),
            "error": "",
            "overran": 0,
            "why": [],
            "seed": about["seed"],
            "class": about["class"],
            "record": str(self.path),
            "runs": len(runs),
            "can_steer": False,
        }

    async def follow(self, last: EventId | None, emit: Emit) -> None:
        before, number = None, 0
        generation = f"record{time.time_ns()}"
        if last is not None:
            await emit(None, "gap", {"lost": None})
        while True:
            try:
                state = await self.state()
            except (BadValue, OSError) as error:
                state = {"problem": str(error)}
            if state != before:
                before, number = state, number + 1
                event = "state" if "state" in state else "unreachable"
                await emit(EventId(generation, number), event, state)
            await anyio.sleep(POLL_SECONDS)

    # ---- the runs

    async def runs(self) -> Json:
        return await self._in_thread(self._describe_runs)

    def _describe_runs(self) -> Json:
        names = ("run", "class", "seed", "parameters", "began", "ended", "steps", "artifacts")
        found = [{name: run.about()[name] for name in names} for run in self.parts()]
        return {"runs": found, "parameters": varied([each["parameters"] for each in found])}

    def parts(self) -> list[RunParts]:
        """The runs, in the order in which they began."""
        now = time.monotonic()
        if now - self._searched >= SEARCH_SECONDS:
            self._searched = now
            found = find_runs(self.path)[:MOST_RUNS]
            buckets = max(100, min(MOST_BUCKETS, BUCKETS // len(found)))
            for run in found:
                if run.name not in self._runs:
                    self._runs[run.name] = RunParts(run, buckets)
        return sorted(self._runs.values(), key=lambda run: run.about()["began"] or 0)

    def _last(self) -> RunParts:
        return self.parts()[-1]

    def _find(self, run: str | None) -> RunParts:
        if run is None:
            return self._last()
        self.parts()
        if run not in self._runs:
            raise PageError(404, f"the record has no run {run!r}")
        return self._runs[run]

    async def metrics(self, by: str | None, points: int) -> Json:
        return await self._in_thread(lambda: self._metrics(by, points))

    def _metrics(self, by: str | None, points: int) -> Json:
        runs = self.parts()
        for run in runs:
            run.read_metrics()
        try:
            return metrics(
                ((run.name, run.about()["parameters"], run.curves) for run in runs), by, points
            )
        except BadValue as error:
            raise PageError(400, str(error)) from error

    # ---- artifacts and society

    async def artifacts(self, run: str | None, asked: Asked) -> Json:
        parts = await self._parts(run)
        return await self._gallery(parts).page(asked, self._reader(parts))

    async def artifact(self, run: str | None, number: int) -> Json:
        parts = await self._parts(run)
        return await self._gallery(parts).whole(number, self._reader(parts))

    async def picture(self, run: str | None, number: int) -> Picture:
        parts = await self._parts(run)
        gallery = self._gallery(parts)
        if (found := await gallery.picture(number)) is None:
            await gallery.look_at(number, self._reader(parts))
            found = await gallery.picture(number)
        assert found is not None
        return found

    async def society(self, run: str | None, step: int | None) -> Json:
        parts = await self._parts(run)
        gallery = self._gallery(parts)
        await gallery.refresh(self._reader(parts))
        return await self._in_thread(lambda: self._society(parts, gallery, step))

    async def _parts(self, run: str | None) -> RunParts:
        return await self._in_thread(lambda: self._find(run))

    def _gallery(self, run: RunParts) -> Gallery:
        found = self._galleries.get(run.name)
        if found is None:
            address = f"api/s/{quote(self.name, safe='')}/artifacts"
            # A run of that name in another folder has other pictures.
            query = f"?run={quote(run.name, safe='')}&began={run.about()['began']}"
            found = self._galleries[run.name] = Gallery(address, query)
        return found

    def _reader(self, run: RunParts) -> Reader:
        return _InThread(run, self._limiter)

    def _society(self, run: RunParts, gallery: Gallery, step: int | None) -> Json:
        labels, connections = run.society(step)
        place = {label: at for at, label in enumerate(labels)}
        edges = [
            (place[one], place[other], weight(data))
            for one, other, data in connections
            if other in place
        ]
        at = run.about()["last_step"] if step is None else step
        nodes = [Node(label) for label in labels]
        return {**society(at, nodes, edges, gallery.counts(step)), "age_seconds": 0.0}

    # ---- what a record has little of

    async def slaves(self) -> Json:
        return {"slaves": []}

    async def log(self, lines: int) -> Json:
        return await self._in_thread(self._log)

    def _log(self) -> Json:
        events = [event for run in self.parts()[-MOST_EVENTS:] for event in run.events(MOST_EVENTS)]
        events.sort(key=lambda event: event[0] or 0.0, reverse=True)
        found = [
            {"when": when, "level": "warning", "text": name, "more": "", "values": _values(details)}
            for when, name, details in events
        ]
        return {"errors": found[:MOST_EVENTS], "lines": [], "path": None}

    async def _in_thread(self, read: Callable[[], T]) -> T:
        return await to_thread.run_sync(read, limiter=self._limiter)


class _InThread:
    """Reads the artifacts of a run in a thread."""

    def __init__(self, run: RunParts, limiter: anyio.CapacityLimiter) -> None:
        self._run, self._limiter = run, limiter

    async def scores(self, since: int, limit: int) -> Mapping[str, Any]:
        """Columns of artifacts."""
        read = partial(self._run.scores, since, limit)
        return await to_thread.run_sync(read, limiter=self._limiter)

    async def views(
        self, numbers: Sequence[int], whole: bool, side: int
    ) -> Sequence[Mapping[str, Any]]:
        """Artifacts."""
        read = partial(self._run.views, numbers, whole, side)
        return await to_thread.run_sync(read, limiter=self._limiter)


def varied(parameters: list[Mapping[str, Any]]) -> list[str]:
    """The names of parameters that differ between runs."""
    names = dict.fromkeys(name for each in parameters for name in each)
    first = parameters[0] if parameters else {}
    return [name for name in names if any(each.get(name) != first.get(name) for each in parameters)]


def _values(details: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in details.items() if value is not None)
