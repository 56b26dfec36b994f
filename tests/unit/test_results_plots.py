"""Plots of results: which lines there are, and that they are drawn."""

from __future__ import annotations

from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from creamas_sc import results
from creamas_sc.errors import BadValue
from creamas_sc.results.plotting import Line, lines
from tests.support.programs import run_code
from tests.support.records import write_run


@pytest.fixture(scope="module")
def matplotlib_started(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its fonts are open, which stay so."""
    folder = tmp_path_factory.mktemp("started")
    results.open(runs(folder, (1, [1.0]))).plot("m").figure.savefig(folder / "m.png")


def lines_of(folder: Path, name: str, by: str | None = None) -> list[Line]:
    found = results.open(folder)
    return lines(found.metrics, found.agents, found.runs, name, by)


def runs(folder: Path, *of: tuple[Any, list[float]]) -> Path:
    for alpha, values in of:
        write_run(folder, metrics=[{"m": v} for v in values], parameters={"alpha": alpha})
    return folder


def test_a_line_for_each_run(tmp_path: Path) -> None:
    runs(tmp_path, (1, [1.0, 2.0]), (2, [3.0]))
    assert lines_of(tmp_path, "m") == [
        Line("run-1", [1, 2], [1.0, 2.0], [], []),
        Line("run-2", [1], [3.0], [], []),
    ]


def test_the_mean_over_agents(tmp_path: Path) -> None:
    write_run(tmp_path, [{"x": [1.0, 3.0]}, {"x": [True, False]}])
    assert lines_of(tmp_path, "x") == [Line("run-1", [1, 2], [2.0, 0.5], [], [])]


def test_runs_that_are_alike_are_a_mean_with_a_band(tmp_path: Path) -> None:
    runs(tmp_path, (10, [1.0]), (9, [5.0]), (10, [2.0, 7.0]), ("x", [0.0]))
    ninth, tenth, text = lines_of(tmp_path, "m", "alpha")
    assert ninth == Line("alpha = 9", [1], [5.0], [], [])
    spread = stdev([1.0, 2.0])
    assert tenth == Line("alpha = 10", [1, 2], [1.5, 7.0], [1.5 - spread, 7.0], [1.5 + spread, 7.0])
    assert text.label == "alpha = x"


def test_what_is_missing_leaves_a_gap(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=[{"m": 1.0}, {"n": 1.0}, {"m": 3.0}])
    assert lines_of(tmp_path, "m")[0].steps == [1, 3]


@pytest.mark.parametrize(
    ("name", "by", "message"),
    [
        ("k", None, "there is no metric 'k'; there are: m, t, x"),
        ("t", None, r"'t' \(metric\) cannot be plotted: 'text' is not a number"),
        ("m", "beta", "a run has no parameter 'beta'; its parameters: alpha"),
    ],
)
def test_what_cannot_be_plotted(tmp_path: Path, name: str, by: str | None, message: str) -> None:
    write_run(tmp_path, [{"x": [1]}], [{"m": 1.0, "t": "text"}], parameters={"alpha": 1})
    with pytest.raises(BadValue, match=message):
        lines_of(tmp_path, name, by)


def test_it_is_drawn(matplotlib_started: None, tmp_path: Path) -> None:
    runs(tmp_path, (1, [1.0, 2.0]), (1, [2.0, 2.0]), (2, [3.0]))
    axes = results.open(tmp_path).plot("m", by="alpha")
    assert [line.get_label() for line in axes.lines] == ["alpha = 1", "alpha = 2"]
    assert len(axes.collections) == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "m")
    axes.figure.savefig(tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert axes.figure._repr_png_().startswith(b"\x89PNG")  # for notebooks
    assert results.open(tmp_path).plot("m", ax=axes) is axes


def test_without_matplotlib(tmp_path: Path) -> None:
    runs(tmp_path, (1, [1.0]))
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from creamas_sc import results; results.open(sys.argv[1]).plot('m')"
    )
    last = run_code(code, str(tmp_path)).stderr.splitlines()[-1]
    assert last.startswith("ImportError: this needs matplotlib, which this Python lacks: ")
    assert "[plot]" in last
