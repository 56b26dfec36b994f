"""What a page shows of records: one run or many, while they are written and later."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from PIL import Image

from creamas_sc.errors import BadValue
from creamas_sc.page.recorded import RecordSource, varied
from creamas_sc.page.source import Asked, PageError
from creamas_sc.results import run_parts
from creamas_sc.results.describing import encode_object
from creamas_sc.results.schema import insert
from creamas_sc.wire.codec import Codec
from tests.support.pages import Visit
from tests.support.records import write_run

PIXELS = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
EVIL = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


def add(file: Path, table: str, rows: Iterable[Any]) -> None:
    """Add rows to a record."""
    with sqlite3.connect(file) as database:
        database.executemany(insert(table), rows)
    database.close()


def artifact(number: int, step: int, agent: int, evaluations: Any, obj: Any = 1) -> tuple[Any, ...]:
    data = encode_object(Codec(), obj)
    texts = json.dumps(evaluations), json.dumps({"8": "bold"}), '{"novelty": 0.25}'
    return (number, step, agent, str(agent), "m:A", "d", *texts, type(obj).__name__, data, None)


def society(folder: Path) -> RecordSource:
    """Ten steps of three agents with artifacts and connections."""
    metrics = [{"novelty": step / 10, "name": "text"} for step in range(1, 11)]
    file = write_run(folder, [{"wealth": [1.0, 2.0, step]} for step in range(10)], metrics)
    rows = [
        artifact(number, 1 + number // 2, number % 3, {"7": number % 5, "8": "good"}, number)
        for number in range(20)
    ]
    rows.append(artifact(20, 10, 2, {}, PIXELS))
    rows.append(artifact(21, 10, 2, {"7": None}, EVIL))
    add(file, "artifacts", rows)
    links = [(1, 0, 1, "0.5"), (1, 1, 0, "null"), (1, 0, 2, '{"weight": 2}'), (5, 0, 2, "3")]
    add(file, "connections", [*links, (1, 2, "tcp://elsewhere:1/1", "1"), (9, 1, None, None)])
    return RecordSource(folder)


def numbers_of(page: Any) -> list[int]:
    return [item["artifact"] for item in page["items"]]


async def test_its_state(tmp_path: Path) -> None:
    source = society(tmp_path / "run")
    state = await source.state()
    assert {name: state[name] for name in ("name", "kind", "step", "last_step", "of")} == {
        "name": "run",
        "kind": "record",
        "step": 10,
        "last_step": 10,
        "of": None,
    }
    assert (state["artifacts"], state["agents"], state["seed"]) == (22, 2, "1")
    assert (state["failed_acts"], state["runs"], state["can_steer"]) == (0, 1, False)


async def test_a_record_that_is_written_one_that_was_killed_and_one_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_run(tmp_path, metrics=[{"x": 1}])
    source = RecordSource(tmp_path)
    assert (await source.state())["state"] == "stepping"
    assert (await source.state())["steps_per_second"] is None
    monkeypatch.setattr(run_parts, "QUIET_SECONDS", 0.0)
    assert (await source.state())["state"] == "unfinished"
    with sqlite3.connect(file) as database:
        database.execute("UPDATE run SET ended = 7.0")
    database.close()
    assert (await source.state())["state"] == "ended"


async def test_metrics_of_a_run(tmp_path: Path) -> None:
    found = await society(tmp_path).metrics(None, 400)
    assert found["names"] == ["novelty", "wealth", "seconds", "acts", "errors", "artifacts"]
    assert found["kinds"]["wealth"] == "agents' mean"
    (line,) = found["series"]["novelty"]
    assert (line["label"], line["runs"], line["low"]) == ("run-1", 1, [])
    assert line["steps"] == list(range(1, 11))
    assert line["values"] == [step / 10 for step in range(1, 11)]
    assert found["series"]["wealth"][0]["values"] == [(3 + step) / 3 for step in range(10)]
    assert found["series"]["artifacts"][0]["values"] == [2.0] * 9 + [4.0]


async def test_steps_without_artifacts_count_as_zero(tmp_path: Path) -> None:
    file = write_run(tmp_path, metrics=[{"x": 1}] * 4)
    source = RecordSource(tmp_path)
    assert "artifacts" not in (await source.metrics(None, 400))["names"]
    add(file, "artifacts", [artifact(0, 3, 0, {}, 1)])
    source = RecordSource(tmp_path)
    (line,) = (await source.metrics(None, 400))["series"]["artifacts"]
    assert (line["steps"], line["values"]) == ([1, 2, 3, 4], [0.0, 0.0, 1.0, 0.0])
    add(file, "steps", [(step, step, 0.0, 0.1, 1, 0, None, 1, None) for step in (5, 6)])
    add(file, "artifacts", [artifact(1, 6, 0, {}, 1)])
    (line,) = (await source.metrics(None, 400))["series"]["artifacts"]
    assert line["values"] == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]


async def test_metrics_have_so_many_points_at_most(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=[{"x": step} for step in range(1, 101)])
    (line,) = (await RecordSource(tmp_path).metrics(None, 10))["series"]["x"]
    assert line["steps"] == [16, 32, 48, 64, 80, 96, 100]
    assert line["values"][0] == sum(range(1, 17)) / 16
    assert line["values"][-1] == (97 + 98 + 99 + 100) / 4


async def test_metrics_grow_with_the_record(tmp_path: Path) -> None:
    file = write_run(tmp_path, metrics=[{"x": 1.0}])
    source = RecordSource(tmp_path)
    await source.metrics(None, 400)
    add(file, "metrics", [(2, "x", 5.0), (2, "y", 1.0)])
    found = await source.metrics(None, 400)
    assert found["series"]["x"][0]["values"] == [1.0, 5.0]
    assert found["series"]["y"][0]["steps"] == [2]


async def test_metrics_of_a_run_that_was_resumed_are_read_again(tmp_path: Path) -> None:
    file = write_run(tmp_path, metrics=[{"x": 1.0}, {"x": 2.0}, {"x": 3.0}])
    source = RecordSource(tmp_path)
    await source.metrics(None, 400)
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM metrics WHERE step > 1")
        database.execute("DELETE FROM steps WHERE step > 1")
    database.close()
    await source.metrics(None, 400)
    add(file, "metrics", [(2, "x", 7.0)])
    found = await source.metrics(None, 400)
    assert found["series"]["x"][0]["values"] == [1.0, 7.0]


async def test_of_a_study_the_mean_with_a_band(tmp_path: Path) -> None:
    for number, (alpha, value) in enumerate([(0.1, 1.0), (0.1, 3.0), (0.5, 7.0)]):
        folder = tmp_path / "runs" / f"key{number}"
        write_run(folder, metrics=[{"x": value}], parameters={"alpha": alpha, "same": 1})
    source = RecordSource(tmp_path)
    assert (await source.runs())["parameters"] == ["alpha"]
    assert len((await source.metrics(None, 400))["series"]["x"]) == 3
    one, other = (await source.metrics("alpha", 400))["series"]["x"]
    assert (one["label"], one["runs"], one["values"]) == ("alpha = 0.1", 2, [2.0])
    assert one["low"] == [2.0 - 2**0.5]
    assert (other["label"], other["runs"], other["low"]) == ("alpha = 0.5", 1, [])
    with pytest.raises(PageError, match="no parameter 'beta'") as raised:
        await source.metrics("beta", 400)
    assert raised.value.status == 400


async def test_lines_of_a_metric_are_bounded(tmp_path: Path) -> None:
    for number in range(30):
        write_run(tmp_path, metrics=[{"x": number}])
    found = await RecordSource(tmp_path).metrics(None, 400)
    assert len(found["series"]["x"]) == 24
    assert found["lines_total"]["x"] == 30


async def test_a_run_that_begins_later_is_found(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=[{"x": 1}])
    source = RecordSource(tmp_path)
    assert len((await source.runs())["runs"]) == 1
    write_run(tmp_path, metrics=[{"x": 1}])
    source._searched = float("-inf")
    assert [run["run"] for run in (await source.runs())["runs"]] == ["run-1", "run-2"]


async def test_the_newest_artifacts(tmp_path: Path) -> None:
    source = society(tmp_path)
    page = await source.artifacts(None, Asked(limit=3))
    assert (page["total"], page["found"], numbers_of(page)) == (22, 22, [21, 20, 19])
    assert page["agents"] == [("2", 8), ("0", 7), ("1", 7)]
    page = await source.artifacts("run-1", Asked(limit=2, offset=3))
    assert numbers_of(page) == [18, 17]
    page = await source.artifacts(None, Asked(upto=3, limit=2))
    assert (page["found"], numbers_of(page)) == (6, [5, 4])
    page = await source.artifacts(None, Asked(upto=3, agent="1"))
    assert (page["found"], numbers_of(page)) == (2, [4, 1])
    assert numbers_of(await source.artifacts(None, Asked(agent="nobody"))) == []
    assert numbers_of(await source.artifacts(None, Asked(upto=0))) == []


async def test_the_best_artifacts(tmp_path: Path) -> None:
    source = society(tmp_path)
    page = await source.artifacts(None, Asked("best", limit=5))
    assert numbers_of(page) == [19, 14, 9, 4, 18]
    assert [item["score"] for item in page["items"]] == [4, 4, 4, 4, 3]
    page = await source.artifacts(None, Asked("best", limit=100))
    assert [item["score"] for item in page["items"][-2:]] == [None, None]


async def test_an_artifact_of_many_is_short(tmp_path: Path) -> None:
    page = await society(tmp_path).artifacts(None, Asked("best", limit=1))
    assert page["items"] == [
        {
            "artifact": 19,
            "step": 10,
            "agent": "1",
            "creator": "1",
            "class": "m:A",
            "domain": "d",
            "object_class": "int",
            "score": 4.0,
            "evaluated": 2,
            "text": "19",
            "picture": None,
        }
    ]


async def test_all_of_an_artifact(tmp_path: Path) -> None:
    source = society(tmp_path)
    found = await source.artifact(None, 4)
    assert found["evaluations"] == [
        {"agent": "7", "evaluation": 4, "framing": None},
        {"agent": "8", "evaluation": "good", "framing": "bold"},
    ]
    assert found["features"] == [("novelty", 0.25)]
    with pytest.raises(PageError, match="no artifact 99"):
        await source.artifact(None, 99)
    with pytest.raises(PageError, match="no run 'x'"):
        await source.artifact("x", 4)


async def test_pictures(tmp_path: Path) -> None:
    visit = Visit(society(tmp_path / "study of all"))
    browser = await visit.enter()
    page = (await browser.get("/api/s/study%20of%20all/artifacts?limit=2")).json
    evil, array = page["items"]
    reply = await browser.get("/" + array["picture"]["url"])
    assert array["picture"]["type"] == reply.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(reply.body))), PIXELS)
    assert "max-age" in reply.headers["cache-control"]
    assert evil["picture"]["type"] == "image/svg+xml"
    reply = await browser.get("/" + evil["picture"]["url"])
    assert reply.body == EVIL.encode()
    assert reply.headers["content-security-policy"].startswith("sandbox;")
    assert (await browser.get("/api/s/study%20of%20all/artifacts/1/picture")).status == 404


async def test_a_picture_is_read_where_no_page_of_artifacts_was(tmp_path: Path) -> None:
    assert (await society(tmp_path).picture(None, 20)).kind == "image/png"


async def test_an_object_whose_class_is_not_here(tmp_path: Path) -> None:
    file = write_run(tmp_path, objects=[1])
    with sqlite3.connect(file) as database:
        database.execute("UPDATE artifacts SET object = x'00', object_class = 'other:Thing'")
    database.close()
    found = await RecordSource(tmp_path).artifact(None, 0)
    assert found["text"].startswith("other:Thing, which cannot be shown here: ")


async def test_the_society_of_a_step(tmp_path: Path) -> None:
    source = society(tmp_path)
    found = await source.society(None, 4)
    assert [node["agent"] for node in found["nodes"]] == ["0", "1", "2"]
    assert [node["artifacts"] for node in found["nodes"]] == [3, 3, 2]
    assert sorted(found["edges"]) == [(0, 1, 0.5), (0, 2, 2.0), (1, 0, 1.0)]
    assert (found["view"], found["step"], found["edges_total"]) == ("graph", 4, 3)
    # From step 5 on agent 0 has one connection, from step 9 on agent 1 has none.
    assert (await source.society(None, None))["edges"] == [(0, 2, 3.0)]


async def test_its_events_are_its_log(tmp_path: Path) -> None:
    source = society(tmp_path)
    lost = json.dumps({"address": "tcp://a/0", "signal": 9, "exit_code": None})
    add(tmp_path / "run-1.sqlite", "events", [(1, 5.0, "slave_lost", lost), (2, 6.0, "x", None)])
    log = await source.log(200)
    assert [entry["text"] for entry in log["errors"]] == ["x", "slave_lost"]
    assert log["errors"][1]["values"] == "address=tcp://a/0 signal=9"
    assert log["lines"] == []
    assert await source.slaves() == {"slaves": []}


async def test_what_happens_is_followed(tmp_path: Path, autojump_clock: Any) -> None:
    source, seen = society(tmp_path), list[Any]()

    async def emit(at: Any, name: str, data: Any) -> None:
        seen.append((name, data))
        if len(seen) == 1:
            add(tmp_path / "run-1.sqlite", "artifacts", [artifact(22, 10, 0, {})])
        if len(seen) == 2:
            (tmp_path / "run-1.sqlite").rename(tmp_path / "gone")
        if len(seen) == 3:
            scope.cancel()

    with trio.CancelScope() as scope:
        await source.follow(None, emit)
    assert [name for name, _ in seen] == ["state", "state", "unreachable"]
    assert [data["artifacts"] for _, data in seen[:2]] == [22, 23]
    assert "cannot be read" in seen[2][1]["problem"]


async def test_who_comes_back_reads_all_again(tmp_path: Path) -> None:
    source = society(tmp_path)

    async def emit(at: Any, name: str, data: Any) -> None:
        seen.append(name)
        if name == "state":
            scope.cancel()

    seen: list[str] = []
    with trio.CancelScope() as scope:
        await source.follow(("record7", 3), emit)  # type: ignore[arg-type]
    assert seen == ["gap", "state"]


def test_what_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="no record of a run"):
        RecordSource.open(tmp_path)
    with pytest.raises(FileNotFoundError):
        RecordSource.open(tmp_path / "x")


def test_parameters_that_vary() -> None:
    assert varied([]) == []
    assert varied([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"c": 1}]) == ["a", "b", "c"]
