"""A simulation in a daemon, as a page shows it.

Each request is a client of its own, which connects, asks and goes; a stream of events is one as
long as it lasts. So nothing has to be kept alive, and a daemon that comes back is found again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from creamas_sc.client import Client, Simulation, connect
from creamas_sc.errors import (
    CreamasError,
    DeadlineExceeded,
    HostLost,
    UnknownSimulation,
)
from creamas_sc.foreign import text_of
from creamas_sc.page.source import Asked, Emit, EventId, Json, PageError, Picture, Source

ANSWER_SECONDS: Final = 10.0
# How long the browser waits for a pause; the simulation may need longer.
PAUSE_SECONDS: Final = 0.8
# The shortest time between two states in a stream, and the longest.
STATE_SECONDS: Final = 0.25
QUIET_SECONDS: Final = 5.0
# How often a daemon that is away is looked for.
RETRY_SECONDS: Final = 1.0


class LiveSource(Source):
    """A running simulation.

    Args:
        daemon: The daemon's name.
        name: The simulation's.
    """

    kind = "simulation"

    def __init__(self, daemon: str, name: str) -> None:
        self.name = name
        self._daemon = daemon
        self._about: dict[str, Any] = {}
        self._last: dict[str, Any] = {}

    # ---- how far it is

    async def state(self) -> Json:
        async with self._attached() as simulation:
            return self._state(await simulation.progress())

    async def steer(self, how: str) -> Json:
        async with self._attached() as simulation:
            try:
                if how == "resume":
                    return self._state(await simulation.resume())
                return self._state(await simulation.pause(PAUSE_SECONDS))
            except DeadlineExceeded as error:
                if not error.acknowledged:
                    raise
                return self._state(await simulation.progress())
            except UnknownSimulation:
                raise
            except CreamasError as error:
                if isinstance(error, ConnectionError):
                    raise
                raise PageError(409, text_of(error)) from error

    async def follow(self, last: EventId | None, emit: Emit) -> None:
        problem = ""
        while True:
            try:
                async with self._attached(QUIET_SECONDS) as simulation:
                    problem = ""
                    generation = str(simulation.pid)
                    since, _ = await simulation.next_events()
                    if last is not None and last.generation == generation and last.number <= since:
                        since = last.number
                    elif last is not None:
                        await emit(None, "gap", {"lost": None})
                    last = EventId(generation, since)
                    await emit(last, "state", self._state(await simulation.progress()))
                    while True:
                        last = await self._events(simulation, last, emit)
                        await anyio.sleep(STATE_SECONDS)
            except PageError as error:
                if problem != str(error):
                    problem = str(error)
                    await emit(None, "state", self._ended(problem))
            except CreamasError as error:
                text = " ".join(text_of(error).split())
                if problem != text:
                    problem = text
                    await emit(None, "unreachable", {"problem": text})
            await anyio.sleep(RETRY_SECONDS)

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
        await emit(last, "state", self._state(progress))
        return last

    def _state(self, progress: Mapping[str, Any]) -> Json:
        about = self._about
        state = {
            "name": self.name,
            "kind": self.kind,
            "reachable": True,
            "problem": "",
            **progress,
            "clients": max(0, progress["clients"] - 1),
            "last_step": progress["age"],
            "failed_acts": None,
            "seed": about["seed"],
            "record": about["record"],
            "class": about["class"],
            "runs": 1,
            "can_steer": True,
        }
        self._last = state
        return state

    def _ended(self, problem: str) -> Json:
        return {**self._last, "name": self.name, "kind": self.kind, "state": "ended",
                "reachable": False, "problem": problem, "can_steer": False}  # fmt: skip

    # ---- connecting

    @asynccontextmanager
    async def _attached(self, more_seconds: float = 0) -> AsyncIterator[Simulation]:
        """Attach to the simulation.

        Args:
            more_seconds: How much longer than usual a call may take.

        Raises:
            PageError: It has ended, or there is none.
            CreamasError: The daemon is not there, or does not answer.
        """
        try:
            async with connect(self._daemon) as client, client.attach(self.name) as simulation:
                client.timeout = ANSWER_SECONDS
                simulation.timeout = ANSWER_SECONDS + more_seconds
                if self._about.get("pid") != simulation.pid or self._about["record"] is None:
                    await self._learn(client, simulation.pid)
                yield simulation
        except UnknownSimulation as error:
            raise PageError(404, f"the simulation {self.name!r} has ended, or never was") from error
        except HostLost as error:
            raise PageError(404, text_of(error)) from error

    async def _learn(self, client: Client, pid: int) -> None:
        """Note what stays the same of the simulation with that host."""
        details = await client.inspect(self.name)
        host, about = details.get("host") or {}, details.get("about") or {}
        status = await client.status()
        seed = host.get("seed", about.get("seed"))
        self._about = {
            "pid": pid,
            "seed": None if seed is None else str(seed),
            "class": about.get("menv_cls"),
            "record": host.get("record"),
            "log": status["log"],
        }

    # ---- not there yet

    async def runs(self) -> Json:
        raise PageError(501, "not there yet")

    async def metrics(self, by: str | None, points: int) -> Json:
        raise PageError(501, "not there yet")

    async def artifacts(self, run: str | None, asked: Asked) -> Json:
        raise PageError(501, "not there yet")

    async def artifact(self, run: str | None, number: int) -> Json:
        raise PageError(501, "not there yet")

    async def picture(self, run: str | None, number: int) -> Picture:
        raise PageError(501, "not there yet")

    async def society(self, run: str | None, step: int | None) -> Json:
        raise PageError(501, "not there yet")

    async def slaves(self) -> Json:
        raise PageError(501, "not there yet")

    async def log(self, lines: int) -> Json:
        raise PageError(501, "not there yet")
