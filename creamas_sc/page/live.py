"""A simulation in a daemon, as a page shows it.

Each request is a client of its own, which connects, asks and goes; a stream of events is one as
long as it lasts. So nothing has to be kept alive, and a daemon that comes back is found again. What
is known of a simulation belongs to one process of its host: another of that name begins anew.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import anyio
from anyio import to_thread

from creamas_sc.client import Client, Simulation, connect
from creamas_sc.errors import CreamasError, DeadlineExceeded, HostLost, UnknownSimulation
from creamas_sc.foreign import text_of
from creamas_sc.page.gallery import Gallery
from creamas_sc.page.live_reads import LiveReader, Loads, Seen, Societies
from creamas_sc.page.log_end import log_end
from creamas_sc.page.metrics import metrics
from creamas_sc.page.recorded import RecordSource
from creamas_sc.page.source import Asked, Emit, EventId, Json, PageError, Picture, Source

T = TypeVar("T")

ANSWER_SECONDS: Final = 10.0
# How long the browser waits for a pause; the simulation may need longer.
PAUSE_SECONDS: Final = 0.8
# The shortest time between two states in a stream, and the longest.
STATE_SECONDS: Final = 0.25
QUIET_SECONDS: Final = 5.0
# How often a daemon that is away is looked for.
RETRY_SECONDS: Final = 1.0
# How often a record is asked for acts that failed.
FAILED_SECONDS: Final = 2.0
RUN: Final = "live"


# What the page shows of a simulation that ended before it was first asked.
_UNKNOWN: Final = {
    **{"step": 0, "last_step": 0, "pausing": False, "error": "", "overran": 0, "why": []},
    **dict.fromkeys(("of", "age", "steps_per_second", "acts_per_second", "seconds_left")),
    **dict.fromkeys(("step_seconds", "repeatable", "failed_acts", "agents", "slaves")),
    **dict.fromkeys(("artifacts", "restarts", "clients", "seed", "record", "class")),
    "runs": 1,
}


class Ended(PageError):
    """The simulation has ended, or never was."""


class LiveSource(Source):
    """A running simulation; once it has ended, its record if it has one.

    Args:
        daemon: The daemon's name.
        name: The simulation's.
    """

    kind = "simulation"

    def __init__(self, daemon: str, name: str) -> None:
        self.name = name
        self.daemon: str = daemon
        self._last: dict[str, Any] = {}
        self._known = _Known(name, 0)

    # ---- how far it is

    async def state(self) -> Json:
        try:
            async with self._attached() as simulation:
                return await self._state(await simulation.progress())
        except Ended as error:
            if not self._last:
                raise
            return self._ended(str(error))

    async def steer(self, how: str) -> Json:
        async with self._attached() as simulation:
            try:
                if how == "resume":
                    return await self._state(await simulation.resume())
                return await self._state(await simulation.pause(PAUSE_SECONDS))
            except DeadlineExceeded as error:
                if not error.acknowledged:
                    raise
                return await self._state(await simulation.progress())
            except CreamasError as error:
                if isinstance(error, (ConnectionError, UnknownSimulation)):
                    raise
                raise PageError(409, text_of(error)) from error

    async def follow(self, last: EventId | None, emit: Emit) -> None:
        problem = ""
        while True:
            try:
                async with self._attached(QUIET_SECONDS) as simulation:
                    problem = ""
                    last = await self._begin(simulation, last, emit)
                    while True:
                        last = await self._events(simulation, last, emit)
                        await anyio.sleep(STATE_SECONDS)  # so often at most
            except Ended as error:
                if problem != str(error):
                    problem = str(error)
                    await emit(None, "state", self._ended(problem))
            except CreamasError as error:
                text = " ".join(text_of(error).split())
                if problem != text:
                    problem = text
                    await emit(None, "unreachable", {"problem": text})
            await anyio.sleep(RETRY_SECONDS)

    async def _begin(self, simulation: Simulation, last: EventId | None, emit: Emit) -> EventId:
        """Send the state; what happened after ``last`` follows."""
        generation = str(simulation.pid)
        since, _ = await simulation.next_events()
        if last is not None and last.generation == generation and last.number <= since:
            since = last.number
        elif last is not None:
            await emit(None, "gap", {"lost": None})
        begin = EventId(generation, since)
        await emit(begin, "state", await self._state(await simulation.progress()))
        return begin

    async def _events(self, simulation: Simulation, last: EventId, emit: Emit) -> EventId:
        """Wait for events and send them, then the state; returns where the stream is."""
        generation, before = last
        number, events = await simulation.next_events(before, QUIET_SECONDS)
        progress: Mapping[str, Any] | None = None
        if lost := number - before - len(events):
            await emit(EventId(generation, before + lost), "gap", {"lost": lost})
        for at, name, details in events:
            if name == "steps":
                progress = details
            else:
                await emit(EventId(generation, at), name, details)
        if progress is None:
            progress = await simulation.progress()
        last = EventId(generation, number)
        await emit(last, "state", await self._state(progress))
        return last

    async def _state(self, progress: Mapping[str, Any]) -> Json:
        known = self._known
        known.seen.note(progress)
        self._last = {
            "name": self.name,
            "kind": self.kind,
            "reachable": True,
            "problem": "",
            **progress,
            "clients": max(0, progress["clients"] - 1),  # without this one
            "last_step": progress["age"],
            "failed_acts": await known.failed_acts(),
            **{name: known.about[name] for name in ("seed", "record", "class")},
            "runs": 1,
            "can_steer": True,
        }
        return self._last

    def _ended(self, problem: str) -> Json:
        ended = {"state": "ended", "reachable": False, "problem": problem, "can_steer": False}
        return {"name": self.name, "kind": self.kind, **_UNKNOWN, **self._last, **ended}

    # ---- what it has

    async def runs(self) -> Json:
        async def live(simulation: Simulation) -> Json:
            progress, about = await simulation.progress(), self._known.about
            run = {
                "run": RUN,
                "class": about["class"],
                "seed": about["seed"],
                "parameters": {},
                "began": None,
                "ended": None,
                "steps": progress["age"],
                "artifacts": progress["artifacts"],
            }
            return {"runs": [run], "parameters": []}

        return await self._read(live, lambda record: record.runs())

    async def metrics(self, by: str | None, points: int) -> Json:
        if self._known.recorded is not None:  # then the simulation need not be asked
            return await self._known.recorded.metrics(by, points)

        async def live(simulation: Simulation) -> Json:
            if self._known.recorded is not None:
                return await self._known.recorded.metrics(by, points)
            return metrics([(RUN, {}, self._known.seen.curves)], None, points)

        return await self._read(live, lambda record: record.metrics(by, points))

    async def artifacts(self, run: str | None, asked: Asked) -> Json:
        return await self._read(
            lambda simulation: self._known.gallery.page(asked, LiveReader(simulation)),
            lambda record: record.artifacts(None, asked),
        )

    async def artifact(self, run: str | None, number: int) -> Json:
        return await self._read(
            lambda simulation: self._known.gallery.whole(number, LiveReader(simulation)),
            lambda record: record.artifact(None, number),
        )

    async def picture(self, run: str | None, number: int) -> Picture:
        gallery = self._known.gallery
        found = await gallery.picture(number)
        if found is not None:
            return found

        async def live(simulation: Simulation) -> Picture:
            gallery = self._known.gallery
            await gallery.look_at(number, LiveReader(simulation))
            found = await gallery.picture(number)
            assert found is not None
            return found

        return await self._read(live, lambda record: record.picture(None, number))

    async def society(self, run: str | None, step: int | None) -> Json:
        record = self._known.recorded
        if step is not None and record is not None:
            return await record.society(None, step)

        async def live(simulation: Simulation) -> Json:
            known = self._known
            await known.gallery.refresh(LiveReader(simulation))
            counts = known.gallery.counts(None)
            return await known.societies.now(simulation, counts)

        return await self._read(live, lambda record: record.society(None, step))

    async def slaves(self) -> Json:
        async def live(simulation: Simulation) -> Json:
            return {"slaves": self._known.loads.per_second(await simulation.process_loads())}

        return await self._read(live, lambda record: record.slaves())

    async def log(self, lines: int) -> Json:
        path = self._known.about.get("log")
        if path is None:  # nothing was asked yet
            async with self._attached():
                path = self._known.about["log"]
        return await to_thread.run_sync(log_end, Path(path), self.name, lines)

    # ---- connecting

    async def _read(
        self,
        live: Callable[[Simulation], Awaitable[T]],
        recorded: Callable[[RecordSource], Awaitable[T]],
    ) -> T:
        """Ask the simulation, or once it has ended its record."""
        try:
            async with self._attached() as simulation:
                return await live(simulation)
        except Ended:
            if self._known.recorded is None:
                raise
        return await recorded(self._known.recorded)

    @asynccontextmanager
    async def _attached(self, more_seconds: float = 0) -> AsyncIterator[Simulation]:
        """Attach to the simulation.

        Args:
            more_seconds: How much longer than usual a call may take.

        Raises:
            Ended: It has ended, or there is none.
            CreamasError: The daemon is not there, or does not answer.
        """
        try:
            async with connect(self.daemon) as client, client.attach(self.name) as simulation:
                client.timeout = ANSWER_SECONDS
                simulation.timeout = ANSWER_SECONDS + more_seconds
                if self._known.pid != simulation.pid:
                    known = _Known(self.name, simulation.pid)
                    await known.learn(client)
                    self._known = known
                yield simulation
        except UnknownSimulation as error:
            why = f"there is no simulation {self.name!r} now: it has ended, or never was"
            raise Ended(404, why) from error
        except HostLost as error:
            raise Ended(404, " ".join(text_of(error).split())) from error


class _Known:
    """What is known of a simulation.

    Args:
        pid: Its host's process.

    Attributes:
        about: What stays the same.
        recorded: What it records; None if it does not.
    """

    def __init__(self, name: str, pid: int) -> None:
        self.pid = pid
        self.about: dict[str, Any] = {}
        self.recorded: RecordSource | None = None
        self.gallery = Gallery(f"api/s/{quote(name, safe='')}/artifacts", f"?of={pid}")
        self.seen, self.loads, self.societies = Seen(), Loads(), Societies()
        self._name = name
        self._failed: tuple[float, int | None] = (-FAILED_SECONDS, None)

    async def failed_acts(self) -> int | None:
        """How many acts have failed, as recorded not long ago; None if it is not recorded."""
        if self.recorded is not None and time.monotonic() - self._failed[0] >= FAILED_SECONDS:
            self._failed = time.monotonic(), (await self.recorded.state())["failed_acts"]
        return self._failed[1]

    async def learn(self, client: Client) -> None:
        """Ask the daemon about it."""
        details = await client.inspect(self._name)
        host, about = details.get("host") or {}, details.get("about") or {}
        seed, record = host.get("seed", about.get("seed")), host.get("record")
        daemon_log = Path((await client.status())["log"])
        self.about = {
            "seed": None if seed is None else str(seed),
            "class": about.get("menv_cls"),
            "record": record,
            "log": str(daemon_log.with_suffix("") / f"{self._name}.log"),
        }
        if record is not None:
            make = partial(RecordSource, Path(record), self._name)
            self.recorded = await to_thread.run_sync(make)
