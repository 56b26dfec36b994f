"""Reading records: tables, filters, files that are none, and what pyarrow makes of tables."""

from __future__ import annotations

import os
import sqlite3
from array import array
from contextlib import closing
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from creamas_sc import results
from creamas_sc.errors import BadValue, DecodeError
from creamas_sc.results.columns import pack
from creamas_sc.results.observing import Asked, Observed, Part
from creamas_sc.results.rows import AgentRows, agent_key, numbers_from, of_connections
from creamas_sc.results.tables import Table, needed
from creamas_sc.rpc.rounds.order import Order
from supervisor.cli.watching import _recorded
from tests.support.programs import run_code
from tests.support.records import write_run

AGENTS: list[dict[str, Any]] = [
    {"x": [0.5, 1.5], "name": ["a", "b"]},
    {"x": [2.5, 3.5], "name": ["a", "b"]},
]


# ---- the columns of agents, from slaves to tables


def observed(step: int, **columns: list[Any]) -> Observed:
    packed = {name: pack(values) for name, values in columns.items()}
    return Observed(step, [Part(None, packed)], {}, [])


def test_columns_of_slaves_are_joined_in_the_order_of_numbers() -> None:
    rows = AgentRows()
    numbers: dict[str, list[Order]] = {"a": [0, 2, (2, 0)], "b": [1, 3]}
    found = rows.of_step(1, {"b": observed(1, x=[1, 3]), "a": observed(1, x=[0, 2, 20])}, numbers)
    assert found["numbers"] == [(1, 1, '[[0, 3], "2.0", [3, 1]]')]
    assert numbers_from(found["numbers"][0][2]) == [0, 1, 2, "2.0", 3]
    assert found["agents"] == [(1, "x", 1, *pack([0, 1, 2, 20, 3]))]
    again = rows.of_step(2, {"a": observed(2, x=[5, 6, 7])}, numbers)
    assert again["numbers"] == [(2, 2, '[0, 2, "2.0"]'.replace("0, 2", "[0, 1], [2, 1]"))]
    third = rows.of_step(3, {"a": observed(3, x=[5, 6, 7])}, numbers)
    assert third["numbers"] == []
    assert third["agents"][0][2] == 2


def test_agents_are_not_put_in_order_again_if_slaves_answer_in_another_one() -> None:
    rows = AgentRows()
    numbers: dict[str, list[Order]] = {"a": [0, 1], "b": [2, 3]}
    slaves = {"a": observed(1, x=[0, 1]), "b": observed(1, x=[2, 3])}
    first = rows.of_step(1, slaves, numbers)
    order = rows._last
    assert order[2] is None  # they are in their order
    again = rows.of_step(1, dict(reversed(slaves.items())), numbers)
    assert again["agents"] == first["agents"]
    assert rows._last is order


def test_connections_in_the_order_of_numbers() -> None:
    seen = {
        "b": Observed(1, [], {0: [("tcp://a/1", "{}")]}, []),
        "a": Observed(1, [], {1: [], 0: [("tcp://b/1", "{}"), ("tcp://z/1", "{}")]}, []),
    }
    known: dict[str, Order] = {"tcp://a/1": 0, "tcp://b/1": (1, 0)}
    numbers: dict[str, list[Order]] = {"a": [0, 2], "b": [(1, 0)]}
    assert of_connections(4, seen, numbers, lambda addr: known.get(addr)) == [
        (4, 0, "1.0", "{}"),
        (4, 0, "tcp://z/1", "{}"),
        (4, "1.0", 0, "{}"),
        (4, 2, None, None),
    ]
    assert sorted(["b", "1.10", 2, "1.2", 1], key=agent_key) == [1, "1.2", "1.10", 2, "b"]


def test_what_a_record_asks_for() -> None:
    record = results.Record("x", observe_every=2, connections_every=3)
    assert [record.asks(step) for step in (1, 2, 3)] == [
        Asked(1, False, False),
        Asked(2, True, False),
        Asked(3, False, True),
    ]


# ---- tables


def test_tables_of_two_runs(tmp_path: Path) -> None:
    write_run(tmp_path, AGENTS, [{"m": 1.0}, {"m": 2.0, "n": "late"}], parameters={"alpha": 1})
    write_run(tmp_path, AGENTS[:1])
    found = results.open(tmp_path)
    assert repr(found) == "<Results of 2 runs: run-1, run-2>"
    assert repr(found.filter(run="run-2")) == "<Results of 1 run: run-2>"
    with pytest.raises(BadValue, match="there is no run 'x' nor 'y'; there are: run-1, run-2"):
        found.filter(run=["x", "y"])
    assert found.runs["parameters"] == [{"alpha": 1}, {}]
    assert found.steps["run"] == ["run-1", "run-1", "run-2"]
    assert list(found.metrics.rows()) == [
        {"run": "run-1", "step": 1, "m": 1.0, "n": None},
        {"run": "run-1", "step": 2, "m": 2.0, "n": "late"},
    ]
    agents = found.agents
    assert list(agents) == ["run", "step", "agent", "x", "name"]
    assert agents["run"] == ["run-1"] * 4 + ["run-2"] * 2
    assert agents["x"] == array("d", [0.5, 1.5, 2.5, 3.5, 0.5, 1.5])
    assert agents["agent"] == array("q", [0, 1] * 3)
    assert agents.num_rows == 6


def test_filters(tmp_path: Path) -> None:
    write_run(tmp_path, AGENTS, objects=["o"])
    write_run(tmp_path, AGENTS)
    found = results.open(tmp_path)
    assert found.filter(run="run-2").steps["run"] == ["run-2"] * 2
    assert found.filter(run=["run-1"]).runs["run"] == ["run-1"]
    assert found.filter(step=2).steps["step"] == [2, 2]
    assert found.filter(step=range(2)).steps["step"] == [1, 1]
    both = found.filter(step={2}).filter(agent=1, run="run-1").agents
    assert list(both.rows()) == [{"run": "run-1", "step": 2, "agent": 1, "x": 3.5, "name": "b"}]
    assert found.filter(agent=0).artifacts.num_rows == 1
    assert found.filter(agent=1).artifacts.num_rows == 0
    assert found.filter(agent=1).steps.num_rows == 4
    with pytest.raises(BadValue, match="there is no run 'run-3'; there are: run-1, run-2"):
        found.filter(run="run-3")


def test_agents_that_differ_in_names_have_gaps(tmp_path: Path) -> None:
    write_run(tmp_path, [{"x": [1, 2, 3], "y": [1.5]}, {"z": [True]}])
    rows = [tuple(row.values())[1:] for row in results.open(tmp_path).agents.rows()]
    assert rows == [
        (1, 0, 1, 1.5, None),
        (1, 1, 2, None, None),
        (1, 2, 3, None, None),
        (2, 0, None, None, True),
    ]


def test_objects_are_decoded_when_they_are_asked_for(tmp_path: Path) -> None:
    large = np.arange(20_000)
    write_run(tmp_path, objects=[large, (1, {2}), b"x"])
    column = results.open(tmp_path).artifacts["object"]
    assert np.array_equal(column[0], large)
    assert column[1:] == [(1, {2}), b"x"]
    (name,) = os.listdir(tmp_path / "objects")
    (tmp_path / "objects" / name).unlink()
    column = results.open(tmp_path).artifacts["object"]
    assert column[1] == (1, {2})
    with pytest.raises(FileNotFoundError):
        column[0]


def test_an_object_whose_class_is_not_here(tmp_path: Path) -> None:
    path = write_run(tmp_path, objects=[b"x"])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE artifacts SET object = x'00'")
    with pytest.raises((DecodeError, ValueError)):
        results.open(tmp_path).artifacts["object"][0]


def test_many_runs_are_not_all_named(tmp_path: Path) -> None:
    for _ in range(8):
        write_run(tmp_path, AGENTS[:1])
    found = repr(results.open(tmp_path))
    assert found == "<Results of 8 runs: run-1, run-2, run-3, run-4, ..., run-8>"


def test_what_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no record"):
        results.open(tmp_path / "nothing")
    with pytest.raises(BadValue, match="has no record of a run in it"):
        results.open(tmp_path)
    text = tmp_path / "text"
    text.write_text("no database, and long enough that SQLite looks at it" * 100)
    with pytest.raises(BadValue, match="is not the record of a run: file is not a database"):
        results.open(text)
    text.write_text("")
    with pytest.raises(BadValue, match=r"the file .*text has no record of a run in it"):
        results.open(text)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(BadValue, match="its version is 99, not 1"):
        print(results.open(other).steps)


def test_a_run_that_has_not_begun_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, AGENTS)
    (tmp_path / "run-2.sqlite").write_bytes(b"")
    assert results.open(tmp_path).runs["run"] == ["run-1"]


def test_runs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = write_run(tmp_path, AGENTS)
    for number in (10, 2):
        (tmp_path / f"run-{number}.sqlite").write_bytes(path.read_bytes())
    assert results.open(tmp_path).runs["run"] == ["run-1", "run-2", "run-10"]


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="there is no column 'c'; there are: a, b"):
        Table({"a": [], "b": []})["c"]


# ---- by pyarrow


@pytest.fixture(scope="module")
def pyarrow_started() -> None:
    """Its threads run, with the descriptors that they keep."""
    import_module("pyarrow.csv").read_csv(BytesIO(b"a\n1\n"))


def test_arrow_has_the_types_of_columns(tmp_path: Path) -> None:
    write_run(tmp_path, AGENTS, objects=["text"])
    table = results.open(tmp_path).agents.to_arrow()
    assert [str(field.type) for field in table.schema] == [
        "string", "int64", "int64", "double", "string",
    ]  # fmt: skip
    assert table.column("x").to_pylist() == [0.5, 1.5, 2.5, 3.5]
    artifacts = results.open(tmp_path).artifacts.to_arrow()
    assert artifacts.column("evaluations").to_pylist() == ['{"0":0.5}']
    assert str(artifacts.schema.field("object").type) == "binary"


def test_values_of_no_common_type_become_text() -> None:
    found = Table({"agent": [0, "1.0"], "mixed": [1, "a"], "none": [None, None], "n": [2**70, 1]})
    assert found.to_arrow().to_pydict() == {
        "agent": ["0", "1.0"],
        "mixed": ["1", "a"],
        "none": [None, None],
        "n": [str(2**70), "1"],
    }


def test_files(pyarrow_started: None, tmp_path: Path) -> None:
    write_run(tmp_path / "record", AGENTS, objects=["text"])
    found = results.open(tmp_path / "record")
    found.agents.to_parquet(tmp_path / "agents.parquet")
    parquet = import_module("pyarrow.parquet").read_table(tmp_path / "agents.parquet")
    assert parquet.equals(found.agents.to_arrow())
    found.artifacts.write(tmp_path / "artifacts.CSV")
    read = import_module("pyarrow.csv").read_csv(tmp_path / "artifacts.CSV")
    assert read.column("creator").to_pylist() == [0]
    assert "object" not in read.column_names
    with pytest.raises(BadValue, match=r"a\.txt must end with \.parquet or \.csv"):
        found.agents.write(tmp_path / "a.txt")


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from creamas_sc.results import Table; Table({'a': [1]}).to_arrow()"
    )
    last = run_code(code).stderr.splitlines()[-1]
    assert last.startswith("ImportError: this needs pyarrow, which this Python lacks: ")
    assert "[results]" in last
    with pytest.raises(
        ImportError,
        match=r"this needs nothing_here, which this Python lacks: pip install nothing_here$",
    ):
        needed("nothing_here.x", "results")


def test_reading_needs_neither_trio_nor_pyarrow(tmp_path: Path) -> None:
    write_run(tmp_path, AGENTS)
    code = (
        "import sys; sys.modules.update(trio=None, pyarrow=None, numpy=None)\n"
        "from creamas_sc import results\n"
        "print(list(results.open(sys.argv[1]).agents['x']))"
    )
    done = run_code(code, str(tmp_path))
    assert (done.stdout, done.stderr) == ("[0.5, 1.5, 2.5, 3.5]\n", "")


def test_the_latest_metrics_are_those_of_the_last_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = [{"a": step, "b": -step} if step % 2 else {"a": step} for step in range(1, 11)]
    path = write_run(tmp_path, metrics=metrics)
    assert results.open(path).latest_metrics(3) == {"a": [(8, 8), (9, 9), (10, 10)], "b": [(9, -9)]}
    assert len(results.open(path).latest_metrics(99)["a"]) == 10
    monkeypatch.setattr("creamas_sc.results.reader.LATEST_ROWS", 2)
    assert results.open(path).latest_metrics(99) == {"b": [(9, -9)], "a": [(10, 10)]}
    assert results.open(write_run(tmp_path / "none")).latest_metrics(3) == {}


def test_metrics_of_a_step_that_is_not_whole_are_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path, metrics=[{"a": 1}, {"a": 2}])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO metrics VALUES (3, 'a', 3)")
    assert results.open(path).latest_metrics(2) == {"a": [(1, 1), (2, 2)]}


def test_top_draws_what_is_recorded(tmp_path: Path) -> None:
    path = write_run(tmp_path, metrics=[{"novelty": 0.5, "of": "text"}, {"novelty": 1, "of": None}])
    assert _recorded(str(path)) == {"novelty": [0.5, 1.0]}
    assert _recorded(str(tmp_path / "missing")) == _recorded(None) == {}
