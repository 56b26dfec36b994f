"""The page's routes: what each asks of its source, and that all answers are small and harmless."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc.errors import AgentError, ConnectionLost, agent_errors
from creamas_sc.page import app as app_module
from creamas_sc.page import stream
from creamas_sc.page.access import ARTIFACT_POLICY
from creamas_sc.page.app import MAX_STREAMS
from creamas_sc.page.source import Asked, Emit, EventId, PageError, Picture
from tests.support.pages import FakeSource, Visit

OF = "/api/s/society"
AGENT_ERROR = AgentError(address="a", type_name="X", message="y")
EVIL = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("state", ("state",)),
        ("runs", ("runs",)),
        ("metrics", ("metrics", None, 400)),
        ("metrics?by=alpha&points=10", ("metrics", "alpha", 10)),
        ("artifacts", ("artifacts", None, Asked("newest", None, None, 0, 48))),
        (
            "artifacts?run=run-2&order=best&upto=0&agent=1.2&offset=5&limit=100",
            ("artifacts", "run-2", Asked("best", 0, "1.2", 5, 100)),
        ),
        ("artifacts/17?run=r", ("artifact", "r", 17)),
        ("artifacts/17/picture", ("picture", None, 17)),
        ("society", ("society", None, None)),
        ("society?run=r&step=3", ("society", "r", 3)),
        ("slaves", ("slaves",)),
        ("log", ("log", 200)),
        ("log?lines=1000", ("log", 1000)),
    ],
)
async def test_what_a_source_is_asked(path: str, asked: Any) -> None:
    visit = Visit()
    browser = await visit.enter()
    reply = await browser.get(f"{OF}/{path}")
    assert reply.status == 200
    assert visit.fake.asked == [asked]
    if "picture" not in path:
        assert reply.headers["content-type"] == "application/json"
        assert reply.json["asked"] == asked[0]


@pytest.mark.parametrize(
    "query",
    [
        *("metrics?points=9", "metrics?points=2001", "metrics?points=x", "metrics?points=-1"),
        *("artifacts?limit=0", "artifacts?limit=101", "artifacts?offset=-1", "artifacts?upto=1.5"),
        *("artifacts?order=worst", "artifacts?upto=٣", "society?step=x", "log?lines=1001"),
        *("artifacts?offset=99999999999999999", "log?lines=0", "artifacts?upto=1e3"),
    ],
)
async def test_parameters_are_bounded(query: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    reply = await browser.get(f"{OF}/{query}")
    assert reply.status == 400
    assert "must be" in reply.json["error"]
    assert visit.fake.asked == []


async def test_numbers_that_json_has_none_of_are_null() -> None:
    visit = Visit()
    visit.fake.answers["runs"] = {"a": [1.0, float("nan"), (float("inf"),)], "b": "NaN"}
    browser = await visit.enter()
    body = (await browser.get(f"{OF}/runs")).body
    assert json.loads(body) == {"a": [1.0, None, [None]], "b": "NaN"}


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (PageError(404, "there is no artifact 1"), 404, "there is no artifact 1"),
        (ConnectionLost("the daemon is\nnot running"), 503, "the daemon is not running"),
        (OSError("the disk is gone"), 503, "the disk is gone"),
        (agent_errors("failed", {"a": AGENT_ERROR}, []), 503, "failed"),
    ],
)
async def test_errors_are_sentences(error: Exception, status: int, text: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    visit.fake.fails = error
    reply = await browser.get(f"{OF}/artifacts/1")
    assert reply.status == status
    assert text in reply.json["error"]
    assert reply.headers["content-type"] == "application/json"


async def test_a_bug_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    visit = Visit()
    browser = await visit.enter()
    visit.fake.fails = ZeroDivisionError("oh")
    assert (await browser.get(f"{OF}/log")).status == 500
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    visit.fake.fails = None
    assert (await browser.get(f"{OF}/log")).status == 200


@pytest.mark.parametrize("path", ["/api/s/other/state", "/api/nothing", "/static/", "/x"])
async def test_what_is_not_there(path: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    assert (await browser.get(path)).status == 404


@pytest.mark.parametrize(
    "name",
    ["../app.py", "..%2fapp.py", "app.py", "..", ".", "", "%00", "index.html/..", "/etc/passwd"],
)
async def test_only_files_of_the_page_are_served(name: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    assert (await browser.get(f"/static/{name}")).status == 404


async def test_the_page_itself() -> None:
    visit = Visit()
    browser = await visit.enter()
    reply = await browser.get("/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.body == (await browser.get("/static/index.html")).body
    assert b"<script>" not in reply.body


@pytest.mark.parametrize("kind", ["image/svg+xml", "text/html"])
async def test_an_artifact_with_a_script_runs_nowhere(kind: str) -> None:
    visit = Visit()
    visit.fake.looks = Picture(kind, EVIL)
    browser = await visit.enter()
    reply = await browser.get(f"{OF}/artifacts/1/picture")
    assert reply.body == EVIL
    assert reply.headers["content-type"] == f"{kind}; charset=utf-8"
    assert reply.headers["content-security-policy"] == ARTIFACT_POLICY
    directives = dict(part.strip().partition(" ")[::2] for part in ARTIFACT_POLICY.split(";"))
    # No origin, no script; and nothing in it allows what the default forbids.
    assert directives["sandbox"] == ""
    assert directives["default-src"] == "'none'"
    assert not {"script-src", "connect-src", "frame-src", "object-src"} & set(directives)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"


# ---- events


def test_an_event_is_lines() -> None:
    assert stream.event(EventId("7", 3), "state", "{}") == b"id: 7-3\nevent: state\ndata: {}\n\n"
    assert stream.event(None, "gap", "{}") == b"event: gap\ndata: {}\n\n"


@pytest.mark.parametrize("text", ["", "7", "7-", "-x", "7-1.5", "7-" + "9" * 19, "7-٣"])
def test_what_is_no_id_of_an_event(text: str) -> None:
    assert EventId.parse(text) is None


def test_an_id_of_an_event() -> None:
    at = EventId("record-17", 5)
    assert EventId.parse(str(at)) == at


@pytest.mark.parametrize(
    ("path", "headers", "asked"),
    [
        ("events", {}, None),
        ("events", {"last_event_id": "7-2"}, EventId("7", 2)),
        ("events?since=7-2", {}, EventId("7", 2)),
        ("events?since=7-1", {"last_event_id": "7-2"}, EventId("7", 2)),
        ("events", {"last_event_id": "nonsense"}, None),
    ],
)
async def test_a_stream_goes_on_where_it_was(path: str, headers: Any, asked: Any) -> None:
    visit = Visit()
    browser = await visit.enter()
    async with browser.stream(f"{OF}/{path}", **headers) as (reply, chunks):
        with trio.fail_after(5):
            found = await chunks.receive() + await chunks.receive()
        assert (reply.status, reply.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
        assert b"retry: 1000\n\n" in found
        assert b'id: 7-3\nevent: state\ndata: {"can_steer":true}\n\n' in found
    assert visit.fake.asked == [("follow", asked)]


async def test_streams_know_of_read_only() -> None:
    visit = Visit(read_only=True)
    browser = await visit.enter()
    async with browser.stream(f"{OF}/events") as (_, chunks):
        found = await chunks.receive() + await chunks.receive()
        assert b'data: {"can_steer":false}' in found


async def test_a_quiet_stream_shows_that_it_is_alive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    visit = Visit()
    browser = await visit.enter()
    async with browser.stream(f"{OF}/events") as (_, chunks):
        for _ in range(2):
            await chunks.receive()
        begin = trio.current_time()
        assert await chunks.receive() == b": \n\n"
        assert trio.current_time() - begin <= 2 * stream.QUIET_SECONDS


async def test_a_browser_that_goes_away_ends_its_stream() -> None:
    ended = trio.Event()

    class Ends(FakeSource):
        async def follow(self, last: EventId | None, emit: Emit) -> None:
            try:
                await super().follow(last, emit)
            finally:
                ended.set()

    visit = Visit(Ends())
    browser = await visit.enter()
    with trio.fail_after(5):
        async with browser.stream(f"{OF}/events") as (_, chunks):
            await chunks.receive()
        await ended.wait()


async def test_streams_end_with_the_page() -> None:
    visit = Visit()
    browser = await visit.enter()
    with trio.fail_after(5):
        async with browser.stream(f"{OF}/events") as (_, chunks):
            await chunks.receive()
            visit.stopping.set()
            async for _ in chunks:
                pass


async def test_a_browser_that_does_not_read_holds_back_its_own_stream_only() -> None:
    class Fast(FakeSource):
        sent = 0

        async def follow(self, last: EventId | None, emit: Emit) -> None:
            while True:
                await emit(None, "state", {})
                self.sent += 1

    source = Fast()
    visit = Visit(source)
    browser = await visit.enter()
    async with browser.stream(f"{OF}/events", buffered=0) as (_, chunks):
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked()
            assert source.sent <= 1
            assert (await browser.get(f"{OF}/state")).status == 200
            await chunks.receive()


async def test_there_are_so_many_streams_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_STREAMS == 32
    monkeypatch.setattr(app_module, "MAX_STREAMS", 2)
    visit = Visit()
    browser = await visit.enter()
    async with browser.stream(f"{OF}/events") as (_, one), browser.stream(f"{OF}/events") as (_, b):
        for chunks in (one, b):
            await chunks.receive()
            await chunks.receive()
        reply = await browser.get(f"{OF}/events")
        assert reply.status == 503
    async with browser.stream(f"{OF}/events") as (found, chunks):
        await chunks.receive()
        assert found.status == 200


async def test_a_stream_that_fails_ends(caplog: pytest.LogCaptureFixture) -> None:
    visit = Visit()
    browser = await visit.enter()
    visit.fake.fails = ZeroDivisionError("oh")
    with trio.fail_after(5):
        assert (await browser.get(f"{OF}/events")).status == 200
    assert "a stream of events failed" in caplog.text
