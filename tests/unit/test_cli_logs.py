"""The verb `logs`, on files that the tests write."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from creamas_sc.runtime import log_tail
from creamas_sc.runtime.log_files import begin_run
from creamas_sc.runtime.log_tail import LogTail
from supervisor.cli import output
from supervisor.cli.main import main
from tests.support.cli_fakes import NAME, FakeClient, lost

LOGGED = {
    "timestamp": "2026-11-22T18:53:30.639455Z",
    "level": "warning",
    "event": "a slave was lost",
    "simulation": NAME,
    "slave": 1,
    "pid": 7,
    "logger": "x",
    "exception": "Traceback:\n  here",
}


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    monkeypatch.setattr("creamas_sc.client.connect_sync", lambda daemon, timeout: made)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path))
    return made


@pytest.fixture
def file(tmp_path: Path, client: FakeClient) -> Path:
    path = tmp_path / "default" / f"{NAME}.log"
    path.parent.mkdir()
    path.write_text(f"{json.dumps(LOGGED)}\nprinted\n")
    return path


@pytest.mark.usefixtures("file")
def test_lines_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", NAME]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-11-22 18:53:30 warning a slave was lost slave=1",
        "    Traceback:",
        "      here",
        "printed",
    ]


def test_no_log_is_shown_where_other_users_may_write(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be theirs, or a pipe from which to read takes for ever."""
    for folder in (file.parent, file.parent.parent):
        folder.chmod(0o777)
        assert main(["logs", NAME]) == 1
        text = capsys.readouterr().err
        assert f"the log {file} is not shown: other users may write to {folder}" in text
        folder.chmod(0o700)
    assert main(["logs", NAME]) == 0


@pytest.mark.usefixtures("file")
def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [LOGGED, {"printed": "printed"}]
    assert main(["logs", NAME, "--json", "-n", "0"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_colours_only_on_a_terminal(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(output, "print", shown.append, raising=False)
    monkeypatch.setattr("supervisor.cli.logs.colored", lambda stream: True)
    assert main(["logs", NAME]) == 0
    assert shown[0].startswith("\x1b[33m")


def test_no_log(capsys: pytest.CaptureFixture[str], client: FakeClient) -> None:
    assert main(["logs"]) == 1
    assert "the daemon has no log: the file" in capsys.readouterr().err
    assert main(["logs", NAME]) == 1
    assert f"the simulation '{NAME}' has no log" in capsys.readouterr().err
    assert main(["logs", "other"]) == 1
    assert f"there are {NAME}" in capsys.readouterr().err
    client.error = lost()
    assert main(["logs"]) == 1


def test_a_log_outlives_its_daemon(
    file: Path, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.error = lost()
    assert main(["logs", NAME, "-n", "1"]) == 0
    assert capsys.readouterr().out == "printed\n"


@pytest.mark.parametrize("client_error", [None, lost()])
def test_earlier_simulations_of_the_name_are_left_out_unless_asked_for(
    file: Path,
    client: FakeClient,
    client_error: Exception | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.error = client_error

    def shown(*options: str) -> list[str]:
        assert main(["logs", NAME, *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [re.sub(r"^[\d-]+ [\d:]+ ", "", line) for line in lines]

    first = ["warning a slave was lost slave=1", "    Traceback:", "      here", "printed"]
    assert shown() == first
    for number in (2, 3):
        begin_run(file, NAME)
        with file.open("a") as log:
            log.write(f'one {number}\n{{"begins": "other"}}\nbegins "begins"\n')
    begins = f"info the simulation {NAME} begins"
    second, third = (
        [begins, f"one {number}", '{"begins": "other"}', 'begins "begins"'] for number in (2, 3)
    )
    assert shown() == third
    assert shown("-n", "2") == third[2:]
    assert shown("-n", "5") == third
    assert shown("--all") == first + second + third
    assert shown("--all", "-n", "5") == second[3:] + third


def test_follow_ends_with_what_logs(
    file: Path, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.ended = "closed"
    assert main(["logs", NAME, "-f", "--json", "-n", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"printed": "printed"}


def test_follow_shows_what_comes(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    monkeypatch.setattr("os.pidfd_open", lambda pid: read)
    shown: list[str] = []

    def show(line: str) -> None:
        shown.append(line)
        if comes:
            comes.pop(0)()

    def more(text: str) -> Callable[[], None]:
        def append() -> None:
            with file.open("a") as log:
                log.write(text)

        return append

    def end() -> None:
        more("two\nno end")()
        os.close(write)  # as a pidfd, it can be read from here on

    comes = [more("one\n"), end]
    file.write_text("zero\n")
    monkeypatch.setattr(output, "print", show, raising=False)
    assert main(["logs", NAME, "-f"]) == 0
    assert shown == ["zero", "one", "two", "no end"]


def test_a_file_that_was_emptied_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("one\ntwo\nthr")
    with path.open("rb") as file:
        tail = LogTail(file, 1000)
        assert tail.read(whole=False) == ["one", "two"]
        with path.open("a") as more:
            more.write("ee\n")
        assert tail.read(whole=False) == ["three"]
        path.write_text("new\n")
        assert tail.read(whole=False) == ["new"]


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("number", [0, 1, 2, 5, 6, 100])
def test_the_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, end: str
) -> None:
    monkeypatch.setattr(log_tail, "BLOCK_BYTES", 4)
    lines = ["a", "", "three three", "", "five"]
    path = tmp_path / "a.log"
    path.write_text("\n".join(lines) + end)
    with path.open("rb") as file:
        tail = LogTail(file, number).read(whole=True)
    assert tail == lines[max(0, 5 - number) :]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.touch()
    with path.open("rb") as file:
        assert LogTail(file, 5).read(whole=True) == []
