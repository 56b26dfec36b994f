"""A server of the page with data that are made up, so that a test decides what happens when."""

from __future__ import annotations

import base64
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import creamas_sc
from creamas_sc.runtime.html import png

STATIC = Path(creamas_sc.__file__).parent / "page" / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; font-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html; charset=utf-8"}
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
HOSTILE_SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 10 10' onload=\"parent.document.title='b'\">"
    "<script>parent.document.title='broken'</script><circle cx='5' cy='5' r='4' fill='teal'/></svg>"
)
HOSTILE_HTML = "<p>hello<script>parent.document.title = 'broken'</script>"


class Society:
    """Made-up data; what a test changes, the page shows."""

    def __init__(self, agents: int = 60, artifacts: int = 400, steps: int = 200) -> None:
        self.rng = random.Random(1)
        self.agents, self.steps = agents, steps
        self.state: dict[str, Any] = {
            **{"name": "colours", "kind": "simulation", "reachable": True, "problem": ""},
            **{"state": "stepping", "step": steps, "of": 1000, "age": steps, "last_step": steps},
            **{"pausing": False, "steps_per_second": 12.34, "acts_per_second": 740.4},
            **{"seconds_left": 64.8, "step_seconds": 0.03, "error": "", "overran": 0},
            **{"repeatable": True, "why": [], "failed_acts": 3, "agents": agents, "slaves": 4},
            **{"artifacts": artifacts, "restarts": 1, "clients": 1, "seed": "1"},
            **{"record": "/home/ada/colours", "runs": 1, "can_steer": True},
            "class": "creamas_sc.mp:MultiEnvironment",
        }
        self.artifacts = [self._artifact(n, n * steps // artifacts + 1) for n in range(artifacts)]
        self.metrics = {"novelty": self._walk(0.62, -0.0004), "value": self._walk(0.2, 0.0012)}
        self.parameters: list[str] = []
        self.said = "the end"  # in the log
        self.events: list[tuple[int, str, Any]] = []
        self.changed = threading.Condition()
        self.asked: list[str] = []
        self.post("state", self.state)

    def post(self, name: str, details: Any) -> None:
        """Send an event to everyone who listens."""
        with self.changed:
            last = self.events[-1][0] if self.events else 0
            self.events = [*self.events[-1000:], (last + 1, name, dict(details))]
            self.changed.notify_all()

    def step(self, published: int = 3) -> None:
        """Make a step, and some artifacts."""
        state = self.state
        for name in ("step", "age", "last_step"):
            state[name] += 1
        for _ in range(published):
            self.artifacts.append(self._artifact(len(self.artifacts), state["step"]))
        state["artifacts"] = len(self.artifacts)
        for values in self.metrics.values():
            values.append(values[-1] + self.rng.gauss(0, 0.01))
        self.post("state", state)

    def _walk(self, value: float, drift: float) -> list[float]:
        values = []
        for _ in range(self.steps):
            value = abs(value + drift + self.rng.gauss(0, 0.012))
            values.append(value)
        return values

    def _artifact(self, number: int, step: int) -> dict[str, Any]:
        rng, agent = self.rng, min(int(self.rng.paretovariate(0.9)) - 1, self.agents - 1)
        score = None if rng.random() < 0.1 else round(rng.betavariate(4, 3), 3)
        made = {"url": f"picture/{number % 40}.png", "type": "image/png"}
        return {
            **{"artifact": number, "step": step, "agent": str(agent), "creator": f"painter {agent}"},
            **{"class": "creamas_sc.core.artifact:Artifact", "domain": "colour"},
            **{"object_class": "builtins:float", "score": score, "evaluated": 0 if score is None else 5},
            **{"text": f"{rng.random():.3f}", "picture": None if number % 5 == 4 else made},
        }

    # ---- what the page asks for

    def get_session(self, query: dict[str, str]) -> Any:
        sources = [{"name": self.state["name"], "kind": self.state["kind"]}]
        return {"token": "t", "read_only": False, "version": "0", "daemon": "default", "sources": sources}

    def get_state(self, query: dict[str, str]) -> Any:
        return self.state

    def get_runs(self, query: dict[str, str]) -> Any:
        names = [f"run-{n + 1}" for n in range(self.state["runs"])]
        runs = [
            {"run": name, "class": "M", "seed": "1", "began": 1.0, "ended": None, "steps": self.steps,
             "artifacts": len(self.artifacts),
             "parameters": {p: [0.1, 0.5, 0.9][n % 3] for p in self.parameters}}
            for n, name in enumerate(names)
        ]  # fmt: skip
        return {"runs": runs, "parameters": self.parameters}

    def get_metrics(self, query: dict[str, str]) -> Any:
        by = query.get("by")
        series: dict[str, Any] = {}
        for name, values in self.metrics.items():
            labels = [f"{by} = {v}" for v in (0.1, 0.5, 0.9)] if by else self._runs()
            series[name] = [self._line(values, label, n, bool(by)) for n, label in enumerate(labels)]
        seconds = [0.06 + 0.02 * math.sin(n / 9) ** 2 for n in range(len(self.metrics["value"]))]
        series["seconds"] = [self._line(seconds, "run-1", 0, False)]
        kinds = {"novelty": "agents' mean", "value": "metric", "seconds": "steps"}
        return {"names": list(series), "kinds": kinds, "series": series, "lines_total": {}}

    def _runs(self) -> list[str]:
        return [f"run-{n + 1}" for n in range(min(self.state["runs"], 24))]

    def _line(self, values: list[float], label: str, at: int, band: bool) -> Any:
        size = max(1, len(values) // 400)
        steps = list(range(size, len(values) + 1, size))
        shown = [values[step - 1] + 0.05 * at * (1 + 0.2 * math.sin(step / 30)) for step in steps]
        low = [value - 0.03 for value in shown] if band else []
        high = [value + 0.03 for value in shown] if band else []
        return {"label": label, "runs": 1, "steps": steps, "values": shown, "low": low, "high": high}

    def get_artifacts(self, query: dict[str, str]) -> Any:
        upto = int(query.get("upto", 10**9))
        within = [each for each in self.artifacts if each["step"] <= upto]
        made: dict[str, int] = {}
        for each in within:
            made[each["agent"]] = made.get(each["agent"], 0) + 1
        found = [each for each in within if query.get("agent", each["agent"]) == each["agent"]]
        found.reverse()
        if query["order"] == "best":
            found.sort(key=lambda each: -1 if each["score"] is None else each["score"], reverse=True)
        offset = int(query["offset"])
        return {
            "total": len(self.artifacts),
            "found": len(found),
            "items": found[offset : offset + int(query["limit"])],
            "agents": sorted(made.items(), key=lambda pair: -pair[1])[:200],
        }

    def get_artifact(self, number: int) -> Any:
        each = self.artifacts[number]
        evaluations = [
            {"agent": str(n), "evaluation": round(random.Random(number * n).random(), 3),
             "framing": {"liked": "the hue"} if n % 2 else None}
            for n in range(each["evaluated"])
        ]  # fmt: skip
        features = [["novelty", 0.31], ["hue", 0.7]]
        return {**each, "evaluations": evaluations, "features": features}

    @lru_cache(maxsize=1)  # noqa: B019
    def get_society(self, run: str) -> Any:
        rng = random.Random(2)
        edges = {}
        for agent in range(self.agents):
            for _ in range(3):
                near = agent // 12 * 12 + rng.randrange(12)
                other = near if rng.random() < 0.85 else rng.randrange(self.agents)
                if other != agent and other < self.agents:
                    edges[agent, other] = round(rng.random(), 3)
        head = {"step": self.steps, "agents": self.agents, "edges_total": len(edges)}
        made = [int(rng.paretovariate(1.1)) for _ in range(self.agents)]
        if self.agents < 500:
            nodes = [
                {"agent": str(n), "address": f"tcp://localhost:{5556 + n % 4}/{n}", "artifacts": made[n],
                 "type": ["painters:Painter", "painters:Critic", "painters:Curator"][n % 7 % 3],
                 "slave": f"tcp://localhost:{5556 + n % 4}/"}
                for n in range(self.agents)
            ]  # fmt: skip
            return {**head, "view": "graph", "nodes": nodes, "edges": [[*k, w] for k, w in edges.items()], "age_seconds": 0}
        size = -(-self.agents // 125)
        count = -(-self.agents // size)
        cells = [0.0] * (count * count)
        for (one, other), weight in edges.items():
            cells[one // size * count + other // size] += weight
        bins = [[str(n * size), str(min((n + 1) * size, self.agents) - 1), size] for n in range(count)]
        artifacts = [sum(made[n * size : (n + 1) * size]) for n in range(count)]
        return {**head, "view": "matrix", "bins": bins, "cells": cells, "artifacts": artifacts, "age_seconds": 0}

    def get_slaves(self, query: dict[str, str]) -> Any:
        rng = random.Random(self.state["step"])
        slaves = [
            {"address": f"tcp://localhost:{5556 + n}/0", "pid": 100 + n, "state": "running",
             "agents": self.agents // 4, "cpu_percent": 40 + 50 * rng.random(),
             "memory_bytes": int(3e7 + 1e6 * rng.random()), "restarts": int(n == 2),
             "step_seconds": [0.031, 0.027, 0.058, 0.029][n] * (0.9 + 0.2 * rng.random())}
            for n in range(4)
        ]  # fmt: skip
        return {"slaves": slaves}

    def get_log(self, query: dict[str, str]) -> Any:
        def entry(n: int, level: str, text: str, more: str = "") -> Any:
            return {"when": 1764280000.0 + n, "level": level, "text": text, "more": more, "values": f"slave={n % 4}"}

        story = 'Traceback (most recent call last):\n  File "painters.py", line 20, in act\n    1 / 0\nZeroDivisionError: division by zero'
        errors = [
            entry(90, "error", "an agent failed: ZeroDivisionError: division by zero", story),
            entry(40, "warning", "the slave tcp://localhost:5558/0 was lost and started again"),
        ]
        lines = [entry(n, "printed" if n % 7 == 0 else "info", f"step {n} is done") for n in range(100)]
        lines.append(entry(100, "info", self.said))
        return {"errors": errors, "lines": lines, "path": "/run/user/1000/creamas/default/colours.log"}


class MadeUpServer:
    """Serves a society to the page; ``stop`` and ``start`` are what its process's death would be."""

    def __init__(self, society: Society) -> None:
        self.society = society
        self.port = 0
        self.refuses = False  # as a server that knows no cookie of the one before
        self.refusal = ""  # of orders

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"page": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections."""
        self._stopped.set()
        with self.society.changed:
            self.society.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MadeUpServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    block_on_close = True
    daemon_threads = False


class _Handler(BaseHTTPRequestHandler):
    page: MadeUpServer
    protocol_version = "HTTP/1.0"  # a connection ends with its answer: a stop waits for none

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.page.society.asked.append(self.path)
        path = unquote(url.path)
        if self.page.refuses and path.startswith("/api"):
            self._json({"error": "no cookie"}, 403)
        elif path == "/":
            self._send((STATIC / "index.html").read_bytes(), TYPES[".html"])
        elif path.startswith("/static/"):
            file = STATIC / path.removeprefix("/static/")
            self._send(file.read_bytes(), TYPES[file.suffix])
        elif path.startswith("/picture/"):
            self._picture(path.removeprefix("/picture/"))
        elif path.endswith("/events"):
            self._events(query)
        else:
            self._json(*self._answer(path, query))

    def do_POST(self) -> None:
        society = self.page.society
        if self.headers["X-Creamas-Token"] != "t":
            self._json({"error": "no token"}, 403)
            return
        if self.page.refusal:
            self._json({"error": self.page.refusal}, 409)
            return
        society.state["state"] = "paused" if self.path.endswith("/pause") else "stepping"
        self._json(society.state)
        society.post("state", society.state)

    def _answer(self, path: str, query: dict[str, str]) -> tuple[Any, int]:
        society, (*_, parent, last) = self.page.society, path.split("/")
        if parent == "artifacts":
            return society.get_artifact(int(last)), 200
        if last == "society":
            return society.get_society(query.get("run", "")), 200
        get: Callable[[dict[str, str]], Any] | None = getattr(society, f"get_{last}", None)
        return ({"error": "there is no such thing"}, 404) if get is None else (get(query), 200)

    def _picture(self, name: str) -> None:
        if name.endswith(".svg"):
            self._send(HOSTILE_SVG.encode(), "image/svg+xml")
        elif name.endswith(".html"):
            self._send(HOSTILE_HTML.encode(), TYPES[".html"], "sandbox; default-src 'none'")
        else:
            self._send(_painting(int(name.removesuffix(".png"))), "image/png")

    def _events(self, query: dict[str, str]) -> None:
        society, stopped = self.page.society, self.page._stopped
        since = int(self.headers.get("Last-Event-ID") or query.get("since") or 0)
        self._head("text/event-stream", CSP)
        while not stopped.is_set():
            with society.changed:
                society.changed.wait_for(lambda: stopped.is_set() or society.events[-1][0] > since, 1)
                fresh = [event for event in society.events if event[0] > since]
            if since == 0:
                fresh = [(society.events[-1][0], "state", society.state)]
            try:
                for number, name, details in fresh:
                    text = f"id: {number}\nevent: {name}\ndata: {json.dumps(details)}\n\n"
                    self.wfile.write(text.encode())
                    since = number
                self.wfile.write(b"" if fresh else b": \n\n")
            except OSError:  # the page was closed
                return

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status=status)

    def _send(self, body: bytes, kind: str, csp: str = CSP, status: int = 200) -> None:
        self._head(kind, csp, status, len(body))
        self.wfile.write(body)

    def _head(self, kind: str, csp: str, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", csp)
        self.send_header("Cache-Control", "max-age=60" if kind == "image/png" else "no-store")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


@lru_cache(maxsize=64)
def _painting(seed: int) -> bytes:
    """A picture of waves."""
    rng = random.Random(seed)
    a, b, c = (rng.uniform(0.02, 0.2) for _ in range(3))
    tint = [rng.random() for _ in range(3)]
    pixels = bytes(_pixels(a, b, c, tint))
    return png(pixels, 96, 96, 3)


def _pixels(a: float, b: float, c: float, tint: list[float]) -> Iterator[int]:
    for y in range(96):
        for x in range(96):
            wave = 0.5 + 0.5 * math.sin(a * x + 3 * math.sin(b * y)) * math.cos(c * (x + y))
            yield from (int(255 * (0.15 + 0.85 * wave * each)) for each in tint)


def report(society: Society) -> str:
    """The page as one file, with its data inside."""
    text = (STATIC / "index.html").read_text()
    for file in (*STATIC.glob("*.css"), *STATIC.glob("*.js")):
        content = file.read_text()
        link = f'<link rel="stylesheet" href="static/{file.name}">'
        text = text.replace(link, f"<style>{content}</style>")
        script = f'<script src="static/{file.name}" defer></script>'
        text = text.replace(script, f"<script>{content}</script>")
    runs = society.get_runs({})
    name = runs["runs"][-1]["run"]
    data = {
        **{"made": 1.0, "session": {**society.get_session({}), "read_only": True}},
        **{"state": society.state, "runs": runs, "metrics": society.get_metrics({})},
        **{"metrics_by": {}, "artifacts_total": {name: len(society.artifacts)}},
        "artifacts": {name: [_with_picture(society.get_artifact(n)) for n in range(len(society.artifacts))]},
        **{"society": {name: society.get_society("")}, "slaves": society.get_slaves({})},
        "log": society.get_log({}),
    }
    inside = json.dumps(data).replace("<", "\\u003c")
    block = f'<script type="application/json" id="creamas-data">{inside}</script>'
    return text.replace("<!-- data -->", block)


def _with_picture(item: Any) -> Any:
    data = base64.b64encode(_painting(item["artifact"] % 40)).decode()
    return {**item, "picture": item["picture"] and {"type": "image/png", "url": f"data:image/png;base64,{data}"}}


def main() -> None:
    """Serve a society that steps, for looking at it by hand."""
    import sys

    society = Society(*map(int, sys.argv[2:]))
    server = MadeUpServer(society)
    server.port = int(sys.argv[1])
    with server:
        print(server.url, flush=True)
        while True:
            time.sleep(0.3)
            if society.state["state"] == "stepping":
                society.step()


if __name__ == "__main__":
    main()
