"""The page with a real daemon, over HTTP: what a browser gets, and how the page ends."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from supervisor.cli.main import main
from tests.support.programs import ROOT, Program

pytestmark = pytest.mark.slow

BOUND_SECONDS = 20.0
AGENTS = """
from creamas_sc import Artifact, CreativeAgent, expose


class Painter(CreativeAgent):
    @expose
    async def act(self):
        artifact = Artifact(self, "<svg><script>alert(1)</script></svg>", domain=str)
        artifact.add_eval(self, self.rng.random())
        self.publish(artifact)

    def observe(self):
        return {"wealth": 1.0}
"""


@pytest.fixture(autouse=True)
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A daemon, and a folder with agents, which is the current one."""
    (tmp_path / "agents_of_page.py").write_text(AGENTS)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    monkeypatch.setenv("CREAMAS_DAEMON", "page")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    assert main(["start"]) == 0
    try:
        yield tmp_path
    finally:
        main(["stop", "--timeout", "0.1"])


def create() -> None:
    """A simulation of two painters that steps and is recorded."""
    words = ["--slaves", "2", "--agents", "agents_of_page.py:Painter=2", "--record", "record"]
    assert main(["create", "sim", *words]) == 0
    assert main(["step", "sim", "--forever"]) == 0


class Browser:
    """A browser that has opened the page's URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        assert parts.port
        self._place = parts.hostname, parts.port
        self.headers: dict[str, str] = {}
        status, headers, _ = self.send("GET", f"{parts.path}?{parts.query}")
        assert status == 303
        self.headers["Cookie"] = headers["set-cookie"].partition(";")[0]
        self.steering = {"X-Creamas-Token": self.get("api/session")["token"]}

    def send(self, method: str, path: str, **headers: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(*self._place, timeout=BOUND_SECONDS)
        try:
            connection.request(method, path, headers={**self.headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, _, body = self.send("GET", f"/{path}")
        assert status == 200, body
        return json.loads(body)

    @contextmanager
    def events(self, last: str = "") -> Iterator[Iterator[tuple[str, str, Any]]]:
        """Events of the simulation: id, name and data."""
        connection = http.client.HTTPConnection(*self._place, timeout=BOUND_SECONDS)
        headers = {**self.headers, "Last-Event-ID": last}
        connection.request("GET", "/api/s/sim/events", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200

        def read() -> Iterator[tuple[str, str, Any]]:
            fields: dict[str, str] = {}
            while line := answer.readline().decode():
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value
                if line == "\n":
                    if "event" in fields:
                        yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
                    fields = {}

        try:
            yield read()
        finally:
            connection.close()


@contextmanager
def page(*words: str) -> Iterator[tuple[Program, Browser]]:
    """A page in another process, and a browser that has entered."""
    with started(*words) as program:
        yield program, Browser(program.read_until("http://"))


def started(*words: str) -> Program:
    """A page in another process."""
    return Program([sys.executable, "-m", "supervisor.cli", "page", *words], Path.cwd())


def until(events: Iterator[tuple[str, str, Any]], name: str, **wanted: Any) -> Any:
    """The first event of that name whose data have these values."""
    for _, found, data in events:
        if found == name and all(data.get(key) == value for key, value in wanted.items()):
            return data
    raise AssertionError(f"the stream ended before {name} {wanted}")


def test_a_page_of_a_simulation(daemon: Path) -> None:
    create()
    with page("sim") as (program, browser):
        with browser.events() as events:
            (at, _, first), (_, _, second) = next(events), next(events)
            assert first["state"] == "stepping"
            assert second["step"] >= first["step"]
        with browser.events(at) as events:  # it goes on from there
            assert next(events)[0] == at
        artifacts = browser.get("api/s/sim/artifacts?order=best&limit=2")
        assert artifacts["total"] > 1
        status, headers, body = browser.send("GET", "/" + artifacts["items"][0]["picture"]["url"])
        assert (status, headers["content-type"]) == (200, "image/svg+xml; charset=utf-8")
        assert headers["content-security-policy"].startswith("sandbox;")
        assert b"<script>" in body
        assert len(browser.get("api/s/sim/society")["nodes"]) == 2
        assert "wealth" in browser.get("api/s/sim/metrics")["names"]
        slaves = browser.get("api/s/sim/slaves")["slaves"]
        assert [each["agents"] for each in slaves] == [1, 1]
        assert {each["state"] for each in slaves} <= {"running", "sleeping"}  # at that moment
        log = browser.get("api/s/sim/log")
        assert any("is up" in entry["text"] for entry in log["lines"])
        state = browser.get("api/s/sim/state")
        assert (state["repeatable"], state["failed_acts"]) == (True, 0)

        assert browser.send("POST", "/api/s/sim/pause")[0] == 403
        evil = {"Origin": "http://evil.example", **browser.steering}
        assert browser.send("POST", "/api/s/sim/pause", **evil)[0] == 403
        assert browser.get("api/s/sim/state")["state"] == "stepping"
        status, _, body = browser.send("POST", "/api/s/sim/pause", **browser.steering)
        assert (status, json.loads(body)["state"]) == (200, "paused")
        status, _, body = browser.send("POST", "/api/s/sim/resume", **browser.steering)
        assert (status, json.loads(body)["state"]) == (200, "stepping")
        other = http.client.HTTPConnection(*browser._place, timeout=BOUND_SECONDS)
        other.request("GET", "/api/s/sim/state")
        assert other.getresponse().status == 403
        other.close()
        with socket.create_connection(browser._place, timeout=BOUND_SECONDS) as stuck:
            cookie = browser.headers["Cookie"]
            head = f"GET /api/s/sim/events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
            stuck.sendall(head.encode())
            assert stuck.recv(12) == b"HTTP/1.1 200"
            program.signal(signal.SIGINT)  # while a browser does not read what comes
            code, out, err = program.finish()
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "creamas-supervisor: the page has ended"
    assert "Traceback" not in err
    assert main(["status"]) == 0


@pytest.mark.long
def test_a_page_outlives_its_simulation_and_the_daemon(daemon: Path) -> None:
    create()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with page("sim", "--port", port) as (program, browser), browser.events() as events:
        until(events, "state", state="stepping")
        assert main(["kill", "sim"]) == 0
        ended = until(events, "state", state="ended")
        assert "sim" in ended["problem"]
        assert browser.get("api/s/sim/artifacts")["total"] > 0  # of the record
        assert main(["stop"]) == 0
        until(events, "unreachable")
        status, _, body = browser.send("GET", "/api/s/sim/state")
        assert status == 503
        assert "is not running" in json.loads(body)["error"]
        assert main(["start"]) == 0
        create()
        assert until(events, "gap") == {"lost": None}
        until(events, "state", state="stepping")
        program.signal(signal.SIGKILL)
        program.finish()
    with started("sim", "--port", port) as program:
        program.read_until("http://")
        assert browser.get("api/s/sim/state")["state"] == "stepping"  # it still has its cookie
        assert browser.send("POST", "/api/s/sim/pause", **browser.steering)[0] == 200
        program.signal(signal.SIGTERM)
        code, _, err = program.finish()
    assert code == 143
    assert "Traceback" not in err
