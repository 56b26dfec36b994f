"""The benchmarks run, at sizes that say nothing of speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.measures import Figure
from tests.benchmarks.profile import by_file, import_shares, self_times
from tests.benchmarks.scaling import describe_growth, slope
from tests.benchmarks.table import ROWS, table
from tests.support.machines import needs_machines

ROOT = Path(__file__).parents[2]
SECONDS = 120


@pytest.mark.long
def test_it_measures_steps_and_calls(tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    command = [sys.executable, "-m", "tests.benchmarks", "w3", "w5", "--tiny", "--rounds", "1"]
    command += ["--systems", "trio,fork,sockets", "--json", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, check=True, timeout=SECONDS, stdout=subprocess.PIPE, text=True
    )
    figures = [Figure.from_json(line) for line in out.read_text().splitlines()]
    assert {(f.workload, f.system) for f in figures} == {
        ("w3", "trio"),
        ("w3", "fork"),
        ("w5", "trio"),
        ("w5", "sockets"),
    }
    assert all(f.value > 0 for f in figures)
    assert "| W5 latency p50 where=across | trio |" in done.stdout


@pytest.mark.long
def test_it_measures_calls_in_steps() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "w11", "w12", "w13", "w14"]
    command += ["--tiny", "--rounds", "1", "--systems", "rounds,trio,fork,sockets"]
    done = subprocess.run(
        command, cwd=ROOT, check=True, timeout=SECONDS, stdout=subprocess.PIPE, text=True
    )
    lines = [line for line in done.stdout.splitlines() if "/s |" in line or " ms |" in line]
    measured = {tuple(line.split("|")[1:3]) for line in lines}
    assert len(measured) == 2 * 3 + 3 + 3 + 3
    assert "| W11 call callers=1 | rounds |" in done.stdout


@pytest.mark.parametrize(("better", "verdict"), [(1.01, "yes"), (0.99, "no")])
def test_each_row_is_judged_by_its_ratio(better: float, verdict: str) -> None:
    figures = []
    for row in (row for row in ROWS if row.limit):
        value = 2 * row.reach * (1 / better if row.less else better)
        for system, each in ((row.forms[0], value), (row.limit, 2.0)):
            _, workload, metric, *params = row.key(system)
            figures.append(Figure(system, workload, metric, each, "", dict(params)))
    rows = table(figures).split("\n\n")[0].splitlines()[2:]
    assert rows
    assert all(line.endswith(f"| {verdict} |") for line in rows), rows


def test_growth_tells_where_a_cost_bends() -> None:
    printed = describe_growth([(1, 1.0), (10, 1.0), (100, 10.0), (1_000, 100.0), (10_000, 4_000.0)])
    assert printed == (
        "flat from 1 to 10; linear from 10 to 1,000; more than linear from 1,000 to 10,000; "
        "a unit costs 4.00 times as much at 10,000 as at 1,000"
    )


def test_slope() -> None:
    assert slope([(0, 5.0), (10, 25.0), (20, 45.0)]) == pytest.approx(2.0)


def test_self_time_is_that_of_the_innermost_function() -> None:
    functions = self_times(
        "run (a.py:1);act (b.py:2) 3\nrun (a.py:1) 1\nrun (a.py:1);go (b.py:9) 2\n"
    )
    assert functions == {"act (b.py:2)": 3, "run (a.py:1)": 1, "go (b.py:9)": 2}
    assert by_file(functions) == {"b.py": 5, "a.py": 1}


def test_import_time_by_package() -> None:
    printed = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |   trio._core
import time:        20 |        120 | trio
import time:         7 |          7 |     selectors
"""
    assert import_shares(printed) == {"trio": 120, "standard library and others": 7}


@pytest.mark.long
@needs_machines
def test_it_measures_societies_on_several_machines() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.machines", "--rounds", "1", "--tiny"]
    done = subprocess.run(
        command, cwd=ROOT, check=True, timeout=SECONDS, stdout=subprocess.PIPE, text=True
    )
    assert "| 2 slaves, 2 machines, 10 ms, rounds |" in done.stdout
