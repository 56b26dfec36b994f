"""A log's files: of a limited size, written by several processes, and read as one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from creamas_sc.runtime import log_files, log_setup
from creamas_sc.runtime.log_files import keep_to_limit, open_log_file
from creamas_sc.runtime.log_tail import LogTail

LIMIT = 2000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "FILE_BYTES", LIMIT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


class Writer:
    """Writes lines as `log_setup` does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = open_log_file(str(path))

    def write(self, *lines: str) -> None:
        for line in lines:
            keep_to_limit(self._descriptor, str(self._path))
            os.write(self._descriptor, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self._descriptor)


def numbered(first: int, last: int) -> list[str]:
    return [f"line {number:05}" for number in range(first, last)]


def everything(path: Path) -> str:
    return "".join(file.read_text() for file in log_files.log_files(path))


def test_the_folders_above_a_log_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(open_log_file(str(tmp_path / "state" / "creamas" / "log" / "a.log")))
    finally:
        os.umask(before)
    folders = (tmp_path / "state").rglob("*")
    assert {each.name: each.stat().st_mode & 0o777 for each in [tmp_path / "state", *folders]} == {
        "state": 0o700,
        "creamas": 0o700,
        "log": 0o700,
        "a.log": 0o600,
    }


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_nothing_is_logged_where_other_users_may_write(tmp_path: Path, mode: int) -> None:
    """They may have made a link there to a file of this user's."""
    folder, file = tmp_path / "shared", tmp_path / "file"
    folder.mkdir()
    folder.chmod(mode)
    file.write_text("before")
    (folder / "log").symlink_to(file)
    with pytest.raises(PermissionError, match=f"other users may write to {folder}"):
        open_log_file(str(folder / "log"))
    assert file.read_text() == "before"


def test_a_log_is_cut_into_files_and_loses_nothing(path: Path) -> None:
    with closing(Writer(path)) as one, closing(Writer(path)) as other:
        for number in range(600):
            (one, other)[number % 2].write(f"line {number:05}")
    assert everything(path).splitlines() == numbered(0, 600)
    sizes = [file.stat().st_size for file in log_files.log_files(path)]
    assert len(sizes) == 4
    assert max(sizes) < LIMIT + 100


def test_what_is_removed_is_told(path: Path) -> None:
    lines = numbered(0, 5000)
    with closing(Writer(path)) as writer:
        writer.write(*lines)
    left = everything(path).splitlines()
    notes = [json.loads(line) for line in left if line.startswith("{")]
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 6 * LIMIT
    assert [line for line in left if not line.startswith("{")] == lines[-len(left) + len(notes) :]
    for note in notes:
        assert note["level"] == "warning"
        assert re.fullmatch(
            r"the log is at its limit: its oldest 2\d\d\d bytes were removed", note["event"]
        )
    assert len(notes) >= 4


def test_processes_that_print_at_once_lose_nothing(path: Path) -> None:
    code = (
        "from creamas_sc.runtime import log_files, log_setup\n"
        "log_files.FILE_BYTES, log_files.KEPT_FILES = 5000, 100\n"
        "log_setup.CHECK_BYTES = 0\n"
        "log_setup.open_actor_log()\n"
        "import sys, os\n"
        "for number in range(2000): print(f'{sys.argv[1]} {number}')\n"
    )
    environ = {**os.environ, "CREAMAS_LOG_FILE": str(path)}
    printing = [subprocess.Popen([sys.executable, "-c", code, name], env=environ) for name in "abc"]
    for process in printing:
        assert process.wait(60) == 0
    assert len(list(path.parent.iterdir())) > 5
    lines = [line for file in path.parent.iterdir() for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abc" for number in range(2000))


def test_a_log_that_was_removed_is_begun_again(path: Path) -> None:
    with closing(Writer(path)) as writer:
        writer.write("old")
        path.unlink()
        writer.write("new")
    assert path.read_text() == "new\n"


@pytest.mark.parametrize("number", [0, 1, 100, 300, 599, 600, 10_000])
def test_the_last_lines_are_found_in_all_files(path: Path, number: int) -> None:
    lines = numbered(0, 600)
    with closing(Writer(path)) as writer:
        writer.write(*lines)
    with closing(LogTail(path.open("rb"), number)) as tail:
        assert tail.read(whole=True) == lines[max(0, 600 - number) :]


def test_new_lines_are_followed_from_file_to_file(path: Path) -> None:
    with closing(Writer(path)) as writer:
        writer.write("first")
        with closing(LogTail(path.open("rb"), 10)) as tail:
            assert tail.read(whole=False) == ["first"]
            for first in (0, 10, 400):  # to be found in the same file, the next one, the third
                last = {0: 10, 10: 400, 400: 750}[first]
                writer.write(*numbered(first, last))
                assert tail.read(whole=False) == numbered(first, last)
            with path.with_name("a.log.1").open("a") as late:
                late.write("by a process that did not notice yet\n")
            assert tail.read(whole=False) == ["by a process that did not notice yet"]
            writer.write(*numbered(0, 5000))  # by now the one that was read is gone
            assert tail.read(whole=False)[-1] == "line 04999"


def test_a_line_now_and_then_goes_into_the_newest_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_setup, "CHECK_SECONDS", 0.0)
    file = log_setup._LossyFile(open_log_file(str(path)), "w")
    file.log = str(path)
    with file, closing(Writer(path)) as other:
        for number in range(3):
            other.write(*numbered(0, 2000))
            file.write(b"rare %d\n" % number)
            assert f"rare {number}" in path.read_text()
