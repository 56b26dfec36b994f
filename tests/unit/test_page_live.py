"""What a page shows of a running simulation, which is faked: no daemon, no process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc.errors import (
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    HostLost,
    UnknownSimulation,
)
from creamas_sc.page import live, live_reads
from creamas_sc.page.live import LiveSource
from creamas_sc.page.live_reads import Loads, Seen, Societies
from creamas_sc.page.source import Asked, EventId, PageError
from tests.support.records import write_run

PROGRESS = {
    "state": "stepping",
    "step": 3,
    "of": 10,
    "age": 3,
    "artifacts": 5,
    "clients": 2,
    "steps_per_second": 2.0,
    "acts_per_second": 6.0,
}


class FakeSimulation:
    """A simulation and its daemon.

    Attributes:
        pid: Of its host.
        events: Those that there were, from number 1 on; numbers below ``kept`` are forgotten.
        trouble: Raised by who attaches.
        record: The file that it records.
    """

    def __init__(self) -> None:
        self.pid, self.kept, self.attached = 7, 1, 0
        self.events: list[tuple[str, Any]] = []
        self.trouble: Exception | None = None
        self.record: str | None = None
        self.steers: Exception | None = None
        self.seconds = 0.5
        self.timeout: float | None = None
        self.asked = 0

    # As a client of a daemon.

    async def inspect(self, name: str) -> Any:
        host = {"record": self.record, "seed": 2**63}
        return {"host": host, "about": {"menv_cls": "m:Society"}}

    async def status(self) -> Any:
        return {"log": "/logs/default.log"}

    @asynccontextmanager
    async def attach(self, name: str) -> AsyncIterator[Any]:
        self.attached += 1
        if self.trouble is not None:
            raise self.trouble
        yield self

    # As a simulation.

    async def progress(self) -> Any:
        if self.trouble is not None:
            raise self.trouble
        return dict(PROGRESS)

    async def next_events(self, since: int | None = None, timeout: float | None = None) -> Any:
        if since is None:
            return len(self.events), []
        if since >= len(self.events):
            await trio.sleep(timeout or 0)
        if self.trouble is not None:
            raise self.trouble
        numbers = range(max(since + 1, self.kept), len(self.events) + 1)
        return len(self.events), [(number, *self.events[number - 1]) for number in numbers]

    async def pause(self, timeout: float) -> Any:
        if self.steers is not None:
            raise self.steers
        return {**PROGRESS, "state": "paused"}

    async def resume(self) -> Any:
        return await self.pause(0)

    async def get_society(self, timeout: float) -> Any:
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        columns = {"agent": ["0", "1"], "type": ["m:A"] * 2, "address": ["tcp://a:1/1"] * 2}
        edges = {"edges": 400_000, "from": [0], "to": [1], "weight": [0.5]}
        return {"age": 3, "seconds": self.seconds, **columns, **edges}

    async def get_artifact_scores(self, since: int, limit: int) -> Any:
        numbers = range(since, min(5, since + limit))
        score = [number / 10 for number in numbers]
        return {"total": 5, "step": [1] * len(score), "agent": ["0"] * len(score), "score": score}

    async def show_artifacts(self, numbers: Any, whole: bool, side: int) -> Any:
        names = ("step", "class", "domain", "object_class", "score", "evaluated", "text")
        look = ("text/html", b"<b>")
        return [
            {"artifact": n, "creator": "0", "look": look, **dict.fromkeys(names)} for n in numbers
        ]

    async def process_loads(self) -> Any:
        return {"time": 1.0, "slaves": [{"pid": 1, "cpu_seconds": 2.0, "agents": 3}]}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSimulation:
    made = FakeSimulation()

    @asynccontextmanager
    async def connect(daemon: str) -> AsyncIterator[Any]:
        if isinstance(made.trouble, ConnectionLost) and not isinstance(made.trouble, HostLost):
            raise made.trouble
        yield made

    monkeypatch.setattr(live, "connect", connect)
    return made


async def follow(source: LiveSource, last: EventId | None, n: int, then: Any = None) -> list[Any]:
    """The first ``n`` events: id, name and data; ``then[k]`` is called after the k-th."""
    seen: list[Any] = []

    async def emit(at: EventId | None, name: str, data: Any) -> None:
        seen.append((None if at is None else str(at), name, data))
        if then and len(seen) in then:
            then[len(seen)]()
        if len(seen) == n:
            scope.cancel()

    with trio.fail_after(100), trio.CancelScope() as scope:
        await source.follow(last, emit)
    return seen


def names(events: list[Any]) -> list[tuple[str | None, str]]:
    return [event[:2] for event in events]


# ---- how far it is


async def test_its_state(fake: FakeSimulation) -> None:
    state = await LiveSource("default", "s").state()
    assert state["state"] == "stepping"
    assert (state["last_step"], state["clients"], state["failed_acts"]) == (3, 1, None)
    assert (state["seed"], state["class"]) == (str(2**63), "m:Society")
    assert state["can_steer"] is True


async def test_acts_that_failed_are_those_that_are_recorded(
    fake: FakeSimulation, tmp_path: Path
) -> None:
    fake.record = str(write_run(tmp_path, metrics=[{"x": 1}]))
    state = await LiveSource("default", "s").state()
    assert (state["failed_acts"], state["record"]) == (0, fake.record)


async def test_a_pause(fake: FakeSimulation) -> None:
    assert (await LiveSource("default", "s").steer("pause"))["state"] == "paused"


async def test_a_pause_that_takes_longer(fake: FakeSimulation) -> None:
    fake.steers = DeadlineExceeded("not yet", acknowledged=True)
    assert (await LiveSource("default", "s").steer("pause"))["state"] == "stepping"


async def test_what_cannot_be_resumed(fake: FakeSimulation) -> None:
    fake.steers = CreamasError("there are no steps to resume")
    with pytest.raises(PageError, match="no steps to resume") as raised:
        await LiveSource("default", "s").steer("resume")
    assert raised.value.status == 409


async def test_one_that_is_unknown_and_one_that_ended(fake: FakeSimulation) -> None:
    source = LiveSource("default", "s")
    known = await LiveSource("default", "s").state()
    fake.trouble = UnknownSimulation("no")
    with pytest.raises(PageError, match="has ended, or never was"):
        await source.state()
    seen = await follow(source, None, 1)
    assert seen[0][2]["state"] == "ended"
    assert set(known) - set(seen[0][2]) <= {"steps_per_second"}
    fake.trouble = None
    await source.state()
    fake.trouble = HostLost("the simulation 's' has ended: closed")
    state = await source.state()
    assert (state["state"], state["reachable"], state["step"]) == ("ended", False, 3)
    assert state["problem"] == "the simulation 's' has ended: closed"
    assert state["can_steer"] is False


async def test_once_it_has_ended_its_record_is_shown(fake: FakeSimulation, tmp_path: Path) -> None:
    fake.record = str(write_run(tmp_path, metrics=[{"x": 1}], objects=["a", "b"]))
    source = LiveSource("default", "s")
    assert (await source.artifacts(None, Asked()))["total"] == 5
    assert (await source.runs())["runs"][0]["run"] == "live"
    fake.trouble = UnknownSimulation("no")
    assert (await source.artifacts("live", Asked()))["total"] == 2
    assert (await source.artifact("live", 1))["text"] == "b"
    assert (await source.metrics(None, 400))["names"][0] == "x"
    assert (await source.runs())["runs"][0]["run"] == "run-1"
    assert (await source.slaves()) == {"slaves": []}


async def test_without_one_it_is_gone(fake: FakeSimulation) -> None:
    source = LiveSource("default", "s")
    await source.state()
    fake.trouble = UnknownSimulation("no")
    with pytest.raises(PageError) as raised:
        await source.artifacts(None, Asked())
    assert raised.value.status == 404


# ---- events


async def test_events_and_the_state_after_them(fake: FakeSimulation, autojump_clock: Any) -> None:
    fake.events = [("steps", {**PROGRESS, "step": 1})]

    def more() -> None:
        fake.events += [
            ("steps", {**PROGRESS, "step": 7}),
            ("slave_lost", {"address": "a"}),
            ("steps", {**PROGRESS, "step": 8}),
        ]

    seen = await follow(LiveSource("default", "s"), None, 3, {1: more})
    assert names(seen) == [("7-1", "state"), ("7-3", "slave_lost"), ("7-4", "state")]
    assert seen[2][2]["step"] == 8


async def test_a_stream_resumes(fake: FakeSimulation, autojump_clock: Any) -> None:
    fake.events = [("a", {}), ("b", {}), ("c", {})]
    seen = await follow(LiveSource("default", "s"), EventId("7", 1), 4)
    assert names(seen) == [("7-1", "state"), ("7-2", "b"), ("7-3", "c"), ("7-3", "state")]


async def test_events_that_are_forgotten_are_a_gap(
    fake: FakeSimulation, autojump_clock: Any
) -> None:
    fake.events, fake.kept = [(str(number), {}) for number in range(1, 10)], 8
    seen = await follow(LiveSource("default", "s"), EventId("7", 2), 5)
    assert names(seen)[:4] == [("7-2", "state"), ("7-7", "gap"), ("7-8", "8"), ("7-9", "9")]
    assert seen[1][2] == {"lost": 5}


@pytest.mark.parametrize("last", [EventId("8", 1), EventId("7", 99)])
async def test_another_simulation_of_that_name_is_a_gap(
    fake: FakeSimulation, autojump_clock: Any, last: EventId
) -> None:
    seen = await follow(LiveSource("default", "s"), last, 2)
    assert names(seen) == [(None, "gap"), ("7-0", "state")]
    assert seen[0][2] == {"lost": None}


async def test_a_stream_is_never_silent(fake: FakeSimulation, autojump_clock: Any) -> None:
    begin = trio.current_time()
    assert names(await follow(LiveSource("default", "s"), None, 3)) == [("7-0", "state")] * 3
    assert trio.current_time() - begin <= 2 * (live.QUIET_SECONDS + live.STATE_SECONDS)


async def test_states_are_four_a_second_at_most(fake: FakeSimulation, autojump_clock: Any) -> None:
    fake.events = [("steps", PROGRESS)]

    def step() -> None:
        fake.events.append(("steps", PROGRESS))

    begin = trio.current_time()
    await follow(LiveSource("default", "s"), None, 9, dict.fromkeys(range(1, 9), step))
    assert trio.current_time() - begin >= 7 * live.STATE_SECONDS


async def test_a_daemon_that_goes_away_and_comes_back(
    fake: FakeSimulation, autojump_clock: Any
) -> None:
    def go() -> None:
        fake.trouble = ConnectionLost("the daemon is\ngone")

    def come() -> None:
        fake.trouble, fake.pid = None, 8

    seen = await follow(LiveSource("default", "s"), None, 4, {1: go, 2: come})
    assert names(seen) == [
        ("7-0", "state"),
        (None, "unreachable"),
        (None, "gap"),
        ("8-0", "state"),
    ]
    assert seen[1][2] == {"problem": "the daemon is gone"}


async def test_a_problem_is_told_once(fake: FakeSimulation, autojump_clock: Any) -> None:
    fake.trouble = ConnectionLost("gone")
    seen: list[Any] = []

    async def emit(at: Any, name: str, data: Any) -> None:
        seen.append(name)

    with trio.move_on_after(10):
        await LiveSource("default", "s").follow(None, emit)
    assert seen == ["unreachable"]


async def test_an_end_is_a_state(fake: FakeSimulation, autojump_clock: Any) -> None:
    def end() -> None:
        fake.trouble = HostLost("it was closed")

    def again() -> None:
        fake.trouble, fake.pid = None, 8

    seen = await follow(LiveSource("default", "s"), None, 4, {1: end, 2: again})
    assert [name for _, name, _ in seen] == ["state", "state", "gap", "state"]
    assert (seen[1][2]["state"], seen[1][2]["problem"]) == ("ended", "it was closed")


# ---- what it has


async def test_artifacts_and_their_pictures(fake: FakeSimulation) -> None:
    source = LiveSource("default", "a b")
    page = await source.artifacts(None, Asked("best", limit=2))
    assert [item["artifact"] for item in page["items"]] == [4, 3]
    picture = {"type": "text/html", "url": "api/s/a%20b/artifacts/4/picture?of=7"}
    assert page["items"][0]["picture"] == picture
    attached = fake.attached
    assert (await source.picture(None, 4)).data == b"<b>"
    assert fake.attached == attached  # it was kept
    assert (await source.picture(None, 1)).data == b"<b>"


async def test_another_simulation_has_other_artifacts(fake: FakeSimulation) -> None:
    source = LiveSource("default", "s")
    await source.artifacts(None, Asked())
    fake.pid = 8
    page = await source.artifacts(None, Asked(limit=1))
    assert page["items"][0]["picture"]["url"].endswith("?of=8")


async def test_metrics_of_one_that_does_not_record_itself(fake: FakeSimulation) -> None:
    source = LiveSource("default", "s")
    await source.state()
    found = await source.metrics(None, 400)
    assert found["series"]["artifacts"][0]["steps"] == [3]
    assert found["series"]["acts_per_second"][0]["values"] == [6.0]


async def test_where_its_log_is(fake: FakeSimulation) -> None:
    log = await LiveSource("default", "s").log(200)
    assert log == {"errors": [], "lines": [], "path": "/logs/default/s.log"}


def test_what_was_seen_counts_once_a_step() -> None:
    seen = Seen()
    assert seen.curves == {}
    for artifacts in (5, 6):
        seen.note({**PROGRESS, "artifacts": artifacts, "steps_per_second": None})
    assert seen.curves["artifacts"][1].coarse(1) == {2: 5.0}
    assert "steps_per_second" not in seen.curves


def test_cpu_use_is_that_since_the_last_request() -> None:
    now = 100.0
    loads = Loads()

    def percent(*seconds: float | None) -> list[Any]:
        slaves = [{"pid": pid, "cpu_seconds": each} for pid, each in enumerate(seconds)]
        found = loads.per_second({"time": now, "slaves": slaves})
        assert all("cpu_seconds" not in slave for slave in found)
        return [slave["cpu_percent"] for slave in found]

    assert percent(1.0, None) == [None, None]
    now += 2
    assert percent(2.0, 1.0) == [50.0, None]
    now += 0.1  # too soon to say more
    assert percent(2.1, 1.1) == [50.0, None]
    now += 0.9
    assert percent(3.0, 1.5) == [100.0, 50.0]


async def test_a_society_is_asked_for_as_rarely_as_it_holds_up_steps(
    fake: FakeSimulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(live_reads, "time", SimpleNamespace(monotonic=lambda: now))
    societies: Any = Societies()
    first = await societies.now(fake, {"1": 4})
    assert first["edges"] == [(0, 1, 0.5)]
    assert (first["edges_total"], first["age_seconds"]) == (400_000, 0.0)
    assert first["nodes"][1] == {
        "agent": "1",
        "type": "m:A",
        "slave": "tcp://a:1/",
        "address": "tcp://a:1/1",
        "artifacts": 4,
    }
    now += 9.75  # a step had waited for half a second
    assert (await societies.now(fake, {}))["age_seconds"] == 9.75
    assert fake.asked == 1
    now += 0.5
    fake.seconds = 0.0
    await societies.now(fake, {})
    now += live_reads.LEAST_SECONDS / 2
    await societies.now(fake, {})
    assert fake.asked == 2


async def test_while_a_step_takes_long_the_last_society_is_shown(
    fake: FakeSimulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(live_reads, "time", SimpleNamespace(monotonic=lambda: now))
    societies: Any = Societies()
    fake.trouble = DeadlineExceeded("the step under way was not done")
    with pytest.raises(DeadlineExceeded):
        await societies.now(fake, {})
    fake.trouble = None
    await societies.now(fake, {})
    now += 1000
    fake.trouble = DeadlineExceeded("the step under way was not done")
    assert (await societies.now(fake, {}))["age_seconds"] == 1000
