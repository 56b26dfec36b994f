"""Parts of the page: the society, the gallery's memory, the end of a log, and the report."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from creamas_sc.page import gallery, log_end, report
from creamas_sc.page.gallery import Gallery, Pictures
from creamas_sc.page.recorded import RecordSource
from creamas_sc.page.society import BINS, MATRIX_FROM, MOST_EDGES, Node, society
from creamas_sc.page.source import Asked
from creamas_sc.results.artifact_views import ArtifactViews
from creamas_sc.runtime.log_files import begin_run
from creamas_sc.runtime.pictures import Look
from tests.support.records import write_run
from tests.unit.test_artifact_views import artifact

# ---- the society


def nodes(number: int) -> list[Node]:
    return [Node(str(at)) for at in range(number)]


def test_a_small_society_is_a_graph_of_its_strongest_connections() -> None:
    edges = [(0, 1, float(strength)) for strength in range(MOST_EDGES + 10)]
    found = society(3, nodes(MATRIX_FROM - 1), edges, {"1": 7})
    assert (found["view"], found["edges_total"]) == ("graph", MOST_EDGES + 10)
    assert len(found["edges"]) == MOST_EDGES
    assert min(strength for _, _, strength in found["edges"]) == 10.0
    assert [node["artifacts"] for node in found["nodes"][:2]] == [0, 7]


@pytest.mark.parametrize("number", [MATRIX_FROM, 1000, 1003, 50_000])
def test_a_large_one_is_a_matrix(number: int) -> None:
    found = society(
        3, nodes(number), [(0, number - 1, 2.0), (1, number - 1, 0.5)], {"0": 1, "1": 2}
    )
    assert (found["view"], found["agents"]) == ("matrix", number)
    assert len(found["bins"]) == BINS
    assert len(found["cells"]) == BINS**2
    assert found["cells"][BINS - 1] == 2.5
    assert sum(found["cells"]) == 2.5
    assert found["artifacts"][0] == 3
    assert sum(each[2] for each in found["bins"]) == number
    assert (found["bins"][0][0], found["bins"][-1][1]) == ("0", str(number - 1))
    assert len(json.dumps(found)) < 200_000


def test_no_society() -> None:
    assert society(None, [], [], {})["nodes"] == []


# ---- the gallery


class Reads:
    """Reads artifacts, and notes how many it has read."""

    def __init__(self, *artifacts: Any) -> None:
        self.artifacts = list(artifacts)
        self.asked: list[tuple[int, int]] = []
        self._views = ArtifactViews(self.artifacts, lambda address: None)

    async def scores(self, since: int, limit: int) -> Any:
        self.asked.append((since, limit))
        return self._views.scores(since, limit)

    async def views(self, numbers: Any, whole: bool, side: int) -> Any:
        return self._views.views(numbers, whole, side)


async def test_only_new_artifacts_are_read() -> None:
    reader, found = Reads(*[artifact("Ada", a=at) for at in range(5000)]), Gallery("a", "")
    assert (await found.page(Asked(limit=1), reader))["total"] == 5000
    assert [since for since, _ in reader.asked] == [0, 2000, 4000]
    reader.artifacts.append(artifact("Bo", a=-1))
    page = await found.page(Asked(limit=1), reader)
    assert reader.asked[3:] == [(5000, 2000)]
    assert (page["items"][0]["artifact"], page["agents"]) == (5000, [("Ada", 5000), ("Bo", 1)])
    best = await found.page(Asked("best", limit=2), reader)
    assert [item["score"] for item in best["items"]] == [4999, 4998]


async def test_artifacts_of_a_run_that_was_resumed_are_read_again() -> None:
    reader, found = Reads(*[artifact("Ada") for _ in range(5)]), Gallery("a", "")
    await found.page(Asked(), reader)
    reader.artifacts[2:] = [artifact("Bo")]
    page = await found.page(Asked(), reader)
    assert (page["total"], page["found"], page["agents"]) == (3, 3, [("Ada", 2), ("Bo", 1)])


async def test_a_fast_society_does_not_hold_an_answer_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "BATCHES", 2)
    reader, found = Reads(*[artifact("Ada")] * 9000), Gallery("a", "")
    page = await found.page(Asked(limit=1), reader)
    assert (page["total"], page["found"]) == (9000, 4000)
    assert (await found.page(Asked(limit=1), reader))["found"] == 8000


async def test_what_is_known_of_artifacts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MOST_ARTIFACTS", 2000)
    monkeypatch.setattr(gallery, "MOST_LABELS", 2)
    monkeypatch.setattr(gallery, "MOST_AGENTS", 1)
    artifacts = [artifact(f"agent {at % 3}") for at in range(5000)]
    reader, found = Reads(*artifacts), Gallery("a", "")
    for _ in range(2):
        page = await found.page(Asked(limit=1), reader)
    assert (page["total"], page["found"]) == (5000, 2000)
    assert page["agents"] == [("agent 0", 667)]
    assert reader.asked == [(0, 2000), (2000, 0)]


async def test_a_million_artifacts_take_20_bytes_each() -> None:
    found = Gallery("a", "")
    sizes = [each.itemsize for each in (found._steps, found._agents, found._scores)]
    assert sum(sizes) <= 24


def test_pictures_that_were_not_shown_for_longest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gallery, "PICTURE_BYTES", 250)
    kept = Pictures()
    for number in (1, 2, 1, 3):
        kept.keep(number, Look("image/png", bytes(100)))
    assert [kept.get(number) is None for number in (1, 2, 3)] == [False, True, False]
    kept.get(1)
    kept.keep(4, Look("image/png", bytes(100)))
    assert kept.get(3) is None
    kept.keep(5, Look("image/png", bytes(300)))  # larger than all together may be
    assert kept.get(5) is None


# ---- the log


def entry(event: str, level: str = "info", **more: Any) -> str:
    when = "2026-11-22T18:53:30.639455Z"
    return json.dumps({"timestamp": when, "level": level, "event": event, **more}) + "\n"


def test_the_end_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    path.write_text(entry("of one before", "error"))
    begin_run(path, "s")
    with path.open("a") as file:
        file.write(entry("careful", "warning", slave=1, pid=7, logger="x", simulation="s"))
        file.write("printed\n")
        file.write(entry("failed\nat line 3", "error", exception="Traceback: ..."))
        file.writelines(entry(f"info {number}") for number in range(300))
    found = log_end.log_end(path, "s", 5)
    assert [each["text"] for each in found["errors"]] == ["failed", "careful"]
    assert found["errors"][0]["more"] == "at line 3\nTraceback: ..."
    assert found["errors"][1] == {
        "when": 1795373610.639455,
        "level": "warning",
        "text": "careful",
        "more": "",
        "values": "slave=1",
    }
    assert [each["text"] for each in found["lines"]] == [f"info {n}" for n in range(295, 300)]
    assert found["path"] == str(path)


def test_what_a_log_says_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    path.write_text(
        "x" * 50_000 + "\n" + entry("y" * 50_000, "error", exception="z" * 50_000, v="w" * 9999)
    )
    found = log_end.log_end(path, "s", 200)
    assert len(json.dumps(found)) < 30_000


def test_errors_are_bounded_and_the_newest_come_first(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    path.write_text("".join(entry(str(number), "error") for number in range(3000)))
    found = log_end.log_end(path, "s", 1)
    assert [each["text"] for each in found["errors"]] == [str(n) for n in range(2999, 2979, -1)]


def test_there_is_no_log(tmp_path: Path) -> None:
    assert log_end.log_end(tmp_path / "x" / "s.log", "s", 5)["lines"] == []


def test_a_log_where_others_may_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "s.log"
    path.parent.mkdir()
    path.write_text(entry("x"))
    path.parent.chmod(0o777)
    assert log_end.log_end(path, "s", 5)["lines"] == []


# ---- the report


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<link rel="stylesheet" href="static/a.css">
</head>
<body>
<p>page</p>
<!-- data -->
<script src="static/a.js" defer></script>
<script src="static/b.js" defer></script>
</body>
</html>
"""
FILES = {
    "index.html": PAGE,
    "a.css": "p { color: red }",
    "a.js": r"let a = '\1</script>';",
    "b.js": "let b;",
}


@pytest.fixture
def _files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "static_file", lambda name: FILES[name].encode())


def data_in(page: str) -> Any:
    (text,) = re.findall('<script type="application/json" id="creamas-data">(.*?)</script>', page)
    return json.loads(text)


@pytest.mark.usefixtures("_files")
def test_a_report_is_one_file() -> None:
    page = report.to_html({"evil": "</script><script>alert(1)</script><!--", "n": float("nan")})
    assert "src=" not in page
    assert "href=" not in page
    assert data_in(page) == {"evil": "</script><script>alert(1)</script><!--", "n": None}
    scripts = re.findall("<script>(.*?)</script>", page, re.S)
    assert scripts == [r"let a = '\1<\/script>';", "let b;"]
    assert page.index("creamas-data") < page.index("let a")
    assert re.findall("<style>(.*?)</style>", page) == ["p { color: red }"]


@pytest.mark.usefixtures("_files")
def test_a_report_runs_its_own_scripts_only() -> None:
    page = report.to_html({})
    (policy,) = re.findall('<meta http-equiv="content-security-policy" content="([^"]*)">', page)
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    texts = re.findall("<script>(.*?)</script>", page, re.S)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    assert directives["script-src"].split() == hashes
    assert "unsafe" not in policy
    assert page.index("content-security-policy") < page.index("<style>")


def test_the_page_can_be_one_file() -> None:
    """All that the page's own files load is found and put in."""
    page = report.to_html({"made": 1})
    assert "static/" not in re.sub("<script>.*?</script>", "", page, flags=re.S)
    assert data_in(page) == {"made": 1}
    source = report._text("index.html")
    assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=|javascript:", source)


async def test_what_a_report_has(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    for alpha in (1, 2):
        folder = tmp_path / "runs" / f"key{alpha}"
        objects = ["<svg><script>alert(1)</script></svg>", pixels, 3]
        write_run(folder, metrics=[{"x": 1.0}], objects=objects, parameters={"alpha": alpha})
    data = await report.collect(RecordSource(tmp_path, "study"))
    assert set(data) == {
        *("made", "session", "state", "runs", "metrics", "metrics_by", "artifacts"),
        *("artifacts_total", "society", "slaves", "log"),
    }
    assert data["session"]["sources"] == [{"name": "study", "kind": "record"}]
    assert (data["session"]["token"], data["session"]["read_only"]) == ("", True)
    assert list(data["metrics_by"]) == ["alpha"]
    assert data["artifacts_total"] == {"key1": 3, "key2": 3}
    svg, array, number = data["artifacts"]["key1"]
    assert svg["picture"]["url"].startswith("data:image/svg+xml;base64,")
    assert array["picture"]["url"].startswith("data:image/png;base64,")
    assert number["picture"] is None
    assert number["evaluations"] == [{"agent": "0", "evaluation": 0.5, "framing": None}]
    assert number["features"] == []
    assert list(data["society"]) == ["key1", "key2"]
    assert data_in(report.to_html(data))["runs"] == data["runs"]


async def test_a_report_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_ARTIFACTS", 4)
    monkeypatch.setattr(report, "PICTURE_BYTES", 150)
    write_run(tmp_path, objects=["<svg/>" for _ in range(20)])
    write_run(tmp_path, objects=["<svg/>" for _ in range(20)])
    artifacts = (await report.collect(RecordSource(tmp_path)))["artifacts"]
    items = [item for of_run in artifacts.values() for item in of_run]
    assert len(items) <= 8
    assert 0 < sum(item["picture"] is not None for item in items) <= 4
