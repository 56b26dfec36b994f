"""What pandas and polars make of results; of a run that is being written, too."""

from __future__ import annotations

import importlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from creamas_sc import results
from creamas_sc.results.run_file import Batch, RunFile
from tests.support.records import write_run

AGENTS: list[dict[str, Any]] = [{"x": [0.5, 1.5], "name": ["a", "b"]}]


def installed(name: str) -> Any:
    """A package of the dependency group "readers"."""
    pytest.importorskip(name)
    return importlib.import_module(name)


def test_pandas(tmp_path: Path) -> None:
    installed("pandas")
    write_run(tmp_path, AGENTS)
    frame = results.open(tmp_path).agents.to_pandas()
    assert list(frame.columns) == ["run", "step", "agent", "x", "name"]
    assert frame["x"].mean() == 1.0


def test_polars(tmp_path: Path) -> None:
    installed("polars")
    write_run(tmp_path, AGENTS)
    frame = results.open(tmp_path).agents.to_polars()
    assert frame["x"].to_list() == [0.5, 1.5]


def test_pandas_reads_the_file_itself_while_it_is_written(tmp_path: Path) -> None:
    pandas = installed("pandas")
    file = RunFile.create(str(tmp_path), {"id": "a"})
    mark = (1, 0, 0.0, 0.0, 1, 0, None, None, None)
    file.write(Batch(1, {"steps": [mark], "metrics": [(1, "x", 0.5)]}, {}))
    with closing(sqlite3.connect(file.path)) as database:
        frame = pandas.read_sql("SELECT * FROM metrics", database)
    assert frame["value"].to_list() == [0.5]
    file.close()
