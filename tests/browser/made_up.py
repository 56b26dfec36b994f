"""A society that is made up, for the page to show: a test decides what happens in it, and when."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import anyio

from creamas_sc.page.source import Asked, Emit, EventId, Json, PageError, Picture, Source
from creamas_sc.runtime.pictures import png

KEPT_EVENTS = 1000
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
HOSTILE_SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' onload=\"parent.document.title='broken'\">"
    "<script>parent.document.title='broken'</script><circle cx='5' cy='5' r='4' fill='teal'/></svg>"
)
HOSTILE_HTML = "<p>hello<script>parent.document.title = 'broken'</script>"
STORY = """Traceback (most recent call last):
  File "painters.py", line 20, in act
    1 / 0
ZeroDivisionError: division by zero"""


class Society(Source):
    """Four slaves whose agents paint.

    Attributes:
        now: The state.
        items: The artifacts.
        metrics_of: Values by name, one a step.
        pictures: Of artifacts, where they are no paintings.
        parameters: Those that differ between runs.
        said: The last line in the log.
        refusal: Why it takes no orders.
        asked: What it was asked for.
    """

    kind, daemon = "simulation", "default"

    def __init__(
        self, agents: int = 60, artifacts: int = 400, steps: int = 200, name: str = "colours"
    ) -> None:
        self.name = name
        self._random = random.Random(1)
        self.agents, self.steps = agents, steps
        self.now: dict[str, Any] = {
            **{"name": self.name, "kind": self.kind, "reachable": True, "problem": ""},
            **{"state": "stepping", "step": steps, "of": 1000, "age": steps, "last_step": steps},
            **{"pausing": False, "steps_per_second": 12.34, "acts_per_second": 740.4},
            **{"seconds_left": 64.8, "step_seconds": 0.03, "error": "", "overran": 0},
            **{"repeatable": True, "why": [], "failed_acts": 3, "agents": agents, "slaves": 4},
            **{"artifacts": artifacts, "restarts": 1, "clients": 1, "seed": "1"},
            **{"record": "/home/ada/colours", "runs": 1, "can_steer": True},
            "class": "creamas_sc.mp:MultiEnvironment",
        }
        self.items = [self._item(n, n * steps // artifacts + 1) for n in range(artifacts)]
        self.metrics_of = {"novelty": self._walk(0.62, -0.0004), "value": self._walk(0.2, 0.0012)}
        self.pictures: dict[int, Picture] = {}
        self.parameters: list[str] = []
        self.said = "the end"
        self.refusal = ""
        self.asked: list[str] = []
        self._events: deque[tuple[int, str, Json]] = deque(maxlen=KEPT_EVENTS)
        self._posted = 0

    def post(self, name: str, details: Json) -> None:
        """Send an event to every page."""
        self._events.append((self._posted + 1, name, dict(details)))
        self._posted += 1

    def step(self, published: int = 3) -> None:
        """Make a step, and some artifacts."""
        for name in ("step", "age", "last_step"):
            self.now[name] += 1
        self.items += [self._item(len(self.items) + n, self.now["step"]) for n in range(published)]
        self.now["artifacts"] = len(self.items)
        for values in self.metrics_of.values():
            values.append(values[-1] + self._random.gauss(0, 0.01))
        self.post("state", self.now)

    def _walk(self, value: float, drift: float) -> list[float]:
        values = []
        for _ in range(self.steps):
            value = abs(value + drift + self._random.gauss(0, 0.012))
            values.append(value)
        return values

    def _item(self, number: int, step: int) -> Json:
        draw = self._random
        agent = min(int(draw.paretovariate(0.9)) - 1, self.agents - 1)
        score = None if draw.random() < 0.1 else round(draw.betavariate(4, 3), 3)
        picture = {
            "url": f"api/s/{quote(self.name)}/artifacts/{number}/picture",
            "type": "image/png",
        }
        return {
            **{"artifact": number, "step": step, "agent": str(agent)},
            **{"creator": f"painter {agent}", "class": "creamas_sc.core.artifact:Artifact"},
            **{"domain": "colour", "object_class": "builtins:float", "score": score},
            **{"evaluated": 0 if score is None else 5, "text": f"{draw.random():.3f}"},
            "picture": None if number % 5 == 4 else picture,
        }

    # ---- a source of the page

    async def state(self) -> Json:
        self.asked.append("state")
        return self.now

    async def follow(self, last: EventId | None, emit: Emit) -> None:
        self.asked.append(f"events since {last}")
        since = self._posted if last is None else last.number
        if last is None:
            await emit(EventId("1", since), "state", self.now)
        while True:
            for number, name, details in [event for event in self._events if event[0] > since]:
                await emit(EventId("1", number), name, details)
                since = number
            await anyio.sleep(0.005)

    async def runs(self) -> Json:
        self.asked.append("runs")
        runs = [
            {
                **{"run": name, "class": "M", "seed": "1", "began": 1.0, "ended": None},
                **{"steps": self.steps, "artifacts": len(self.items)},
                "parameters": dict.fromkeys(self.parameters, (0.1, 0.5, 0.9)[n % 3]),
            }
            for n, name in enumerate(self._names())
        ]
        return {"runs": runs, "parameters": self.parameters}

    async def metrics(self, by: str | None, points: int) -> Json:
        self.asked.append("metrics")
        labels = [f"{by} = {value}" for value in (0.1, 0.5, 0.9)] if by else self._names()[:24]
        series = {
            name: [_line(values, label, at, by is not None) for at, label in enumerate(labels)]
            for name, values in self.metrics_of.items()
        }
        seconds = [0.06 + 0.02 * math.sin(n / 9) ** 2 for n in range(self.now["step"])]
        series["seconds"] = [_line(seconds, "run-1", 0, False)]
        kinds = {"novelty": "agents' mean", "value": "metric", "seconds": "steps"}
        totals = dict.fromkeys(series, self.now["runs"])
        return {"names": list(series), "kinds": kinds, "series": series, "lines_total": totals}

    def _names(self) -> list[str]:
        return [f"run-{n + 1}" for n in range(self.now["runs"])]

    async def artifacts(self, run: str | None, asked: Asked) -> Json:
        self.asked.append("artifacts")
        within = [each for each in self.items if asked.upto is None or each["step"] <= asked.upto]
        found = [each for each in within if asked.agent in (None, each["agent"])][::-1]
        if asked.order == "best":
            found.sort(key=lambda item: -item["score"] if item["score"] is not None else 1)
        items = found[asked.offset : asked.offset + asked.limit]
        return {
            "total": len(self.items),
            "found": len(found),
            "items": [_whole(item) for item in items] if asked.whole else items,
            "agents": Counter(each["agent"] for each in within).most_common(200),
        }

    async def artifact(self, run: str | None, number: int) -> Json:
        self.asked.append("artifact")
        return _whole(self.items[number])

    async def picture(self, run: str | None, number: int) -> Picture:
        return self.pictures.get(number) or Picture("image/png", _painting(number % 40))

    async def society(self, run: str | None, step: int | None) -> Json:
        self.asked.append("society")
        return _society(self.agents)

    async def slaves(self) -> Json:
        self.asked.append("slaves")
        draw = random.Random(self.now["step"])
        return {
            "slaves": [
                {
                    **{"address": f"tcp://localhost:{5556 + n}/0", "pid": 100 + n},
                    **{"state": "running", "agents": self.agents // 4, "restarts": int(n == 2)},
                    **{"cpu_percent": 40 + 50 * draw.random()},
                    **{"memory_bytes": int(3e7 + 1e6 * draw.random())},
                    **{"step_seconds": (0.031, 0.027, 0.058, 0.029)[n] * draw.uniform(0.9, 1.1)},
                }
                for n in range(4)
            ]
        }

    async def log(self, lines: int) -> Json:
        self.asked.append("log")
        failed = "an agent failed: ZeroDivisionError: division by zero"
        lost = "the slave tcp://localhost:5558/0 was lost and started again"
        done = [_entry(n, "info" if n % 7 else "printed", f"step {n} is done") for n in range(100)]
        return {
            "errors": [_entry(90, "error", failed, STORY), _entry(40, "warning", lost)],
            "lines": [*done, _entry(100, "info", self.said)],
            "path": "/home/ada/.local/state/creamas/log/default/colours.log",
        }

    async def steer(self, how: str) -> Json:
        if self.refusal:
            raise PageError(409, self.refusal)
        self.now["state"] = "paused" if how == "pause" else "stepping"
        self.post("state", self.now)
        return self.now


def _whole(item: Json) -> Json:
    draw = random.Random(item["artifact"])
    evaluations = [
        {
            **{"agent": str(n), "evaluation": round(draw.random(), 3)},
            "framing": {"liked": "the hue"} if n % 2 else None,
        }
        for n in range(item["evaluated"])
    ]
    return {**item, "evaluations": evaluations, "features": [["novelty", 0.31], ["hue", 0.7]]}


def _entry(number: int, level: str, text: str, more: str = "") -> Json:
    when = 1764280000.0 + number
    return {"when": when, "level": level, "text": text, "more": more, "values": "role=host"}


def _line(values: list[float], label: str, at: int, band: bool) -> Json:
    size = max(1, len(values) // 400)
    steps = list(range(size, len(values) + 1, size))
    shown = [values[step - 1] + 0.05 * at * (1 + 0.2 * math.sin(step / 30)) for step in steps]
    low = [value - 0.03 for value in shown] if band else []
    high = [value + 0.03 for value in shown] if band else []
    return {"label": label, "runs": 1, "steps": steps, "values": shown, "low": low, "high": high}


@lru_cache(maxsize=4)
def _society(agents: int) -> Json:
    """Circles of friends, and some acquaintances elsewhere."""
    draw = random.Random(2)
    weights: dict[tuple[int, int], float] = {}
    for agent in range(agents):
        for _ in range(3):
            friend = agent // 12 * 12 + draw.randrange(12)
            other = friend if draw.random() < 0.85 else draw.randrange(agents)
            if other != agent and other < agents:
                weights[agent, other] = round(draw.random(), 3)
    made = [int(draw.paretovariate(1.1)) for _ in range(agents)]
    head = {"step": 1, "agents": agents, "edges_total": len(weights), "age_seconds": 0}
    if agents >= 500:
        return {**head, **_matrix(agents, weights, made)}
    types = ("painters:Painter", "painters:Critic", "painters:Curator")
    nodes = [
        {
            **{"agent": str(n), "address": f"tcp://localhost:{5556 + n % 4}/{n}"},
            **{"type": types[n % 7 % 3], "slave": f"tcp://localhost:{5556 + n % 4}/"},
            "artifacts": made[n],
        }
        for n in range(agents)
    ]
    edges = [[one, other, weight] for (one, other), weight in weights.items()]
    return {**head, "view": "graph", "nodes": nodes, "edges": edges}


def _matrix(agents: int, weights: dict[tuple[int, int], float], made: list[int]) -> Json:
    size = -(-agents // 125)
    starts = range(0, agents, size)
    cells = [0.0] * len(starts) ** 2
    for (one, other), weight in weights.items():
        cells[one // size * len(starts) + other // size] += weight
    return {
        "view": "matrix",
        "bins": [[str(at), str(min(at + size, agents) - 1), size] for at in starts],
        "cells": cells,
        "artifacts": [sum(made[at : at + size]) for at in starts],
    }


@lru_cache(maxsize=64)
def _painting(seed: int) -> bytes:
    """A picture of waves."""
    draw = random.Random(seed)
    waves = [draw.uniform(0.02, 0.2) for _ in range(3)]
    tint = [draw.random() for _ in range(3)]
    return png(bytes(_pixels(waves, tint)), 96, 96, 3)


def _pixels(waves: list[float], tint: list[float]) -> Iterator[int]:
    a, b, c = waves
    for y in range(96):
        for x in range(96):
            wave = 0.5 + 0.5 * math.sin(a * x + 3 * math.sin(b * y)) * math.cos(c * (x + y))
            yield from (int(255 * (0.15 + 0.85 * wave * each)) for each in tint)
