"""The commands that read records: of a folder, of a file, of a simulation by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.errors import ConnectionLost
from supervisor.cli.main import main
from tests.support.cli_fakes import NAME, FakeClient
from tests.support.records import write_run

Run = Callable[..., tuple[int, str, str]]


class RecordedClient(FakeClient):
    """Its simulation is recorded in ``record``; the host says so while it runs."""

    record: Path | None = None
    runs = True

    def inspect(self, name: str, *, environ: bool = False) -> Any:
        details = super().inspect(name, environ=environ)
        folder = None if self.record is None else str(self.record)
        details["about"]["record"] = folder
        if folder is None:
            return details
        details["host"] = {"record": f"{folder}/run-2.sqlite"} if self.runs else None
        return details


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedClient:
    made = RecordedClient()
    monkeypatch.setattr("creamas_sc.client.connect_sync", lambda daemon, timeout: made)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def run(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Two runs of two steps with two agents."""
    for alpha in (1, 2):
        agents = [{"novelty": [0.5 * alpha, 1.0]}] * 2
        write_run(tmp_path / "record", agents, [{"m": alpha}] * 2, parameters={"alpha": alpha})
    return tmp_path / "record"


@pytest.fixture(scope="module")
def matplotlib_started(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its fonts are open, which stay so."""
    figure = import_module("matplotlib.figure").Figure()
    figure.subplots().set_xlabel("x")
    figure.savefig(tmp_path_factory.mktemp("started") / "m.png")


def parquet(path: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = import_module("pyarrow.parquet").read_table(path).to_pydict()
    return found


def test_export_of_a_folder(run: Run, record: Path) -> None:
    code, out, err = run("export", "record", "out.parquet")
    assert (code, out, err) == (0, "out.parquet: 8 rows of agents\n", "")
    assert parquet("out.parquet")["novelty"] == [0.5, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    words = ["export", str(record), "out.csv", "--table", "metrics", "--run", "run-2", "--json"]
    code, out, _ = run(*words)
    assert (code, json.loads(out)) == (0, {"file": "out.csv", "table": "metrics", "rows": 2})
    assert Path("out.csv").read_text() == '"run","step","m"\n"run-2",1,2\n"run-2",2,2\n'


@pytest.mark.parametrize("runs", [True, False])
def test_export_of_a_simulation(run: Run, client: RecordedClient, record: Path, runs: bool) -> None:
    client.record, client.runs = record, runs
    assert run("export", NAME, "out.parquet", "--table", "steps")[0] == 0
    # One that has ended is all of its folder.
    assert parquet("out.parquet")["run"] == [*["run-1"] * 2 * (not runs), "run-2", "run-2"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([NAME, "out.csv"], 1, f"{NAME} is not recorded: create it with --record DIR"),
        (["unknown", "out.csv"], 1, "no simulation 'unknown'"),
        (["./nothing", "out.csv"], 1, "there is no folder or file ./nothing"),
        (["a b", "out.csv"], 2, "is not a name for a simulation"),
        (["record", "out.txt"], 1, "out.txt must end with .parquet or .csv"),
        (["record", "out.csv", "--run", "run-9"], 1, "there is no run 'run-9'; there are: run-1"),
        (["record", "out.csv", "--table", "all"], 2, "--table"),
        (["record", "no/where/out.csv"], 1, "no/where/out.csv"),
        (["record"], 2, "FILE"),
    ],
)
def test_exports_that_fail(
    run: Run, record: Path, words: list[str], code: int, message: str
) -> None:
    found, out, err = run("export", *words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_mistyped_folder_without_a_daemon(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(daemon: str, timeout: float) -> Any:
        raise ConnectionLost("the daemon is not running")

    monkeypatch.setattr("creamas_sc.client.connect_sync", refuse)
    said = (
        "creamas-supervisor: there is no folder or file recrod here, and the daemon is not running"
    )
    assert run("export", "recrod", "out.csv") == (69, "", f"{said}\n")


def test_plot(matplotlib_started: None, run: Run, record: Path) -> None:
    assert run("plot", "record", "novelty", "out.png") == (0, "out.png\n", "")
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("plot", "record", "m", "out.svg", "--by", "alpha", "--json")
    assert (code, json.loads(out)) == (0, {"file": "out.svg", "lines": 2})
    code, out, err = run("plot", "record", "m", "out.doc")
    assert (code, out) == (2, "")
    assert "out.doc: " in err
    code, out, err = run("plot", "record", "n", "out.png")
    assert (code, err) == (
        1,
        "creamas-supervisor: there is no metric 'n'; there are: m, novelty\n",
    )


def test_create_passes_the_folder_on(run: Run, client: RecordedClient) -> None:
    assert run("create", NAME, "--record", "some/folder")[0] == 0
    assert client.created["record"] == Path("some/folder")
    assert run("create", NAME)[0] == 0
    assert "record" not in client.created
