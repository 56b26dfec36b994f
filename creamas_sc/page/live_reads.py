"""What a page asks of a running simulation, and how it keeps that cheap for the simulation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
from anyio import to_thread

from creamas_sc.client import Simulation
from creamas_sc.errors import DeadlineExceeded
from creamas_sc.page.metrics import Curves
from creamas_sc.page.society import Node, society
from creamas_sc.page.source import Json
from creamas_sc.results.curves import Curve

# A society for which a step has waited is asked for again after so many times that.
RARITY: Final = 20
LEAST_SECONDS: Final = 2.0
# How long the end of the step under way is waited for.
STEP_SECONDS: Final = 5.0
# CPU use is that since the last request, if that was so long ago.
LOAD_SECONDS: Final = 0.5
_SEEN: Final = {"artifacts": "metric", "acts_per_second": "steps", "steps_per_second": "steps"}


class LiveReader:
    """Reads the artifacts of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    async def scores(self, since: int, limit: int) -> Mapping[str, Any]:
        """Columns of artifacts."""
        found: Mapping[str, Any] = await self._simulation.get_artifact_scores(since, limit)
        return found

    async def views(
        self, numbers: Sequence[int], whole: bool, side: int
    ) -> Sequence[Mapping[str, Any]]:
        """Artifacts."""
        found: Sequence[Mapping[str, Any]] = await self._simulation.show_artifacts(
            list(numbers), whole, side
        )
        return found


class Seen:
    """What was seen of a simulation that does not record itself.

    Attributes:
        curves: By name.
    """

    def __init__(self) -> None:
        self._curves = {name: (kind, Curve()) for name, kind in _SEEN.items()}
        self._age = -1

    @property
    def curves(self) -> Curves:
        """Those of which something was seen."""
        return {name: found for name, found in self._curves.items() if found[1].last}

    def note(self, progress: Mapping[str, Any]) -> None:
        """Note the progress, once for each step."""
        if progress["age"] == self._age:
            return
        self._age = progress["age"]
        for name, (_, curve) in self._curves.items():
            if progress[name] is not None:
                curve.add(self._age, progress[name])


class Loads:
    """Turns CPU seconds so far into what a slave uses."""

    def __init__(self) -> None:
        # By process: when, the seconds by then, and what it used before.
        self._before: dict[tuple[str, int], tuple[float, float, float | None]] = {}

    def per_second(self, loads: Mapping[str, Any]) -> list[Json]:
        """The slaves, as the page has them.

        Args:
            loads: As the simulation's `process_loads` has them.
        """
        now, before, found = loads["time"], self._before, []
        self._before = {}
        for slave in loads["slaves"]:
            who, seconds = (slave.get("node", ""), slave["pid"]), slave["cpu_seconds"]
            percent = None
            if seconds is not None:
                then, known, percent = before.get(who, (now, seconds, None))
                if now - then >= LOAD_SECONDS:
                    percent = 100 * (seconds - known) / (now - then)
                    then, known = now, seconds
                self._before[who] = then, known, percent
            rest = {name: value for name, value in slave.items() if name != "cpu_seconds"}
            found.append({**rest, "cpu_percent": percent})
        return found


class Societies:
    """Asks for all agents and connections, as rarely as these are many."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._found: Json = None
        self._asked, self._took = 0.0, 0.0

    async def now(self, simulation: Simulation, artifacts: Mapping[str, int]) -> Json:
        """The society, as it was not long ago.

        Raises:
            DeadlineExceeded: The step under way takes long, and nothing was asked for before.
        """
        async with self._lock:
            ago = time.monotonic() - self._asked
            if self._found is None or ago > max(LEAST_SECONDS, RARITY * self._took):
                try:
                    view = await simulation.get_society(STEP_SECONDS)
                except DeadlineExceeded:
                    if self._found is None:
                        raise
                else:
                    self._asked, self._took, ago = time.monotonic(), view["seconds"], 0.0
                    self._found = await to_thread.run_sync(_society, view, artifacts)
            return {**self._found, "age_seconds": ago}


def _society(view: Mapping[str, Any], artifacts: Mapping[str, int]) -> Json:
    """What the page shows.

    Args:
        view: As the simulation's `get_society` has it.
    """
    nodes = [
        Node(label, kind, f"{address.rpartition('/')[0]}/", address)
        for label, kind, address in zip(view["agent"], view["type"], view["address"], strict=True)
    ]
    edges = list(zip(view["from"], view["to"], view["weight"], strict=True))
    return society(view["age"], nodes, edges, artifacts, view["edges"])
