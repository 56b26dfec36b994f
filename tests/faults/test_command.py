"""`python -m tests.faults`: it resumes, keeps failures, and knows the sources of its rounds."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.outcomes import Outcome, Record, version
from tests.faults.programs import MarkedProgram
from tests.faults.registry import Row
from tests.support.programs import run

NOW = "abc-dirty, sources 1, Python 3"
SAME = "def, sources 1, Python 3"
OTHER = "abc, sources 2, Python 3"


def outcome(round: int, version: str = NOW) -> Outcome:
    return Outcome(1, round, "case", version, figures={"seconds": 1.0})


def test_outcomes_of_the_same_sources_count(tmp_path: Path) -> None:
    file = tmp_path / "out"
    for each in (outcome(0), outcome(1, SAME), outcome(2, OTHER)):
        Record(file, each.version, older=False).add(each)
    with file.open("a") as out:
        out.write('{"row": 1, "round"')  # killed while it wrote
    record = Record(file, NOW, older=False)
    assert record.of(1) == [outcome(0), outcome(1, SAME)]
    assert (1, 1) in record
    assert (1, 2) not in record
    assert record.of(2) == []
    assert Record(file, NOW, older=True).of(1)[-1] == outcome(2, OTHER)


def test_the_last_outcome_of_a_round_counts(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        last = outcome(0)
        last.seconds = seconds
        Record(tmp_path / "out", NOW, older=False).add(last)
    assert Record(tmp_path / "out", NOW, older=False).of(1) == [last]


def test_the_version_is_of_the_sources() -> None:
    assert version() == version()
    assert ", sources " in version()


def test_a_summary_shows_the_largest_or_the_sum_of_figures() -> None:
    each = Row(1, "", "", ("case",), 1, 1, 1, lambda case, number, folder: {})
    figures = [{"seconds": 0.5, "total frames": 10.0}, {"seconds": 0.25, "total frames": 5.0}, {}]
    assert each.summary(figures) == "seconds 0.5, total frames 15"


def long_form(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "tests.faults", *args, folder=folder)


@pytest.mark.long
def test_an_interrupted_run_prints_its_table_and_can_be_resumed(tmp_path: Path) -> None:
    assert long_form(tmp_path, "9", "--rounds", "1").returncode == 0
    command = [sys.executable, "-m", "tests.faults", "9", "4", "--rounds", "1"]
    with MarkedProgram(command, tmp_path) as program:
        # Row 9 is done, as before, and row 4 is under way once it has slaves.
        while not any(name.startswith("slave") for name in program.members().values()):
            assert program.process.poll() is None
        program.process.send_signal(signal.SIGINT)
        code, table, err = program.finish()
        assert (code, err) == (130, "")
        program.wait_none(2)
    assert "| 1 of 1 | 0 |" in table
    assert "| 0 of 1 | 0 |" in table
    done = long_form(tmp_path, "9", "--rounds", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "| 2 of 2 | 0 |" in done.stdout
    assert len((tmp_path / "faults-out.jsonl").read_text().splitlines()) == 2


FAILING = """
import sys
from tests.faults import cases, registry
import pytest

def once(case, number, folder):
    if number:
        with pytest.raises(KeyError):  # whose failure is not an Exception
            pass
    return {}

registry.row(99, "none", "never", cases=("case",), rounds=2, short=0)(once)
from tests.faults.__main__ import main
sys.argv = ["tests.faults", "99"]
sys.exit(main())
"""


def test_a_failed_round_is_counted_and_kept(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", FAILING, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "| 2 of 2 | 1 |" in done.stdout
    assert "failed: row 99, round 1, case: Failed: DID NOT RAISE" in done.stdout
    assert "DID NOT RAISE" in (tmp_path / "faults-out.jsonl").read_text()
