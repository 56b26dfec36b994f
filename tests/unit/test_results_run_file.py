"""The file of a run: created once, written whole or not at all, read meanwhile and afterwards."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.errors import BadValue
from creamas_sc.experiments.ledger import Ledger
from creamas_sc.results import run_file
from creamas_sc.results.run_file import (
    INLINE_BYTES,
    Batch,
    RecordGone,
    RunFile,
    lock_file,
    on_network,
    read_object,
)

RUN = {"id": "a", "class": "m:C", "seed": "1"}


def step(number: int, **rows: list[tuple[Any, ...]]) -> Batch:
    mark = (number, 0, 0.0, 0.0, 1, 0, None, None, None)
    return Batch(number, {"steps": [mark], **rows}, {})


def artifact(index: int, data: bytes) -> tuple[Any, ...]:
    return (index, 1, 0, "0", "C", "d", "{}", "{}", "{}", "c", data, None)


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_a_second_run_is_a_second_file(tmp_path: Path) -> None:
    first = RunFile.create(str(tmp_path / "new" / "folder"), RUN)
    second = RunFile.create(str(tmp_path / "new" / "folder"), RUN)
    assert [first.path.name, second.path.name] == ["run-1.sqlite", "run-2.sqlite"]
    first.close()
    second.close()
    first.path.unlink()
    third = RunFile.create(str(tmp_path / "new" / "folder"), RUN)
    third.close()
    assert third.path.name == "run-3.sqlite"  # 1 may be known by its name elsewhere


def test_it_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    with pytest.raises(BlockingIOError, match=r"run-1\.sqlite is being written by another process"):
        lock_file(file.path)
    file.close()
    os.close(lock_file(file.path))


def test_what_is_written_can_be_read_at_once(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    with closing(sqlite3.connect(file.path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT step FROM steps").fetchall() == []
        file.write(step(1))  # a reader does not hold it up
        assert reader.execute("SELECT step FROM steps").fetchall() == []
        reader.execute("COMMIT")
        assert reader.execute("SELECT step FROM steps").fetchall() == [(1,)]
    file.close()


def test_after_the_close_it_is_one_file_that_needs_no_writing(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    file.write(step(1))
    assert (tmp_path / "run-1.sqlite-wal").exists()
    file.close()
    assert [each.name for each in tmp_path.iterdir()] == ["run-1.sqlite"]
    with closing(sqlite3.connect(f"{file.path.as_uri()}?immutable=1", uri=True)) as reader:
        assert reader.execute("SELECT step FROM steps").fetchall() == [(1,)]


def test_a_step_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    bad = step(1, metrics=[(1, "x", 1.0), (1, "y", object())])
    with pytest.raises(sqlite3.Error):
        file.write(bad)
    assert rows(file.path, "SELECT * FROM metrics") == []
    file.write(step(1, metrics=[(1, "x", 1.0)]))
    assert rows(file.path, "SELECT * FROM metrics") == [(1, "x", 1.0)]
    file.close()


def test_a_step_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    file.write(step(1, metrics=[(1, "x", 1.0)]))
    file.write(step(1, metrics=[(1, "x", 1.0)]))
    assert rows(file.path, "SELECT * FROM metrics") == [(1, "x", 1.0)]
    file.close()


def test_columns_of_the_run_change_with_a_step(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    file.write(step(1)._replace(run={"seed": "7", "ended": 2.0}))
    assert rows(file.path, "SELECT id, seed, ended FROM run") == [("a", "7", 2.0)]
    file.close()


def test_a_full_disk_is_an_error_and_no_half_step(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    ((pages,),) = file._db.execute("PRAGMA page_count").fetchall()
    file._db.execute(f"PRAGMA max_page_count = {pages}")
    large = step(1, events=[(1, 0.0, "x", "y" * 100_000)])
    with pytest.raises(sqlite3.OperationalError, match="full"):
        file.write(large)
    assert rows(file.path, "SELECT * FROM steps") == []
    file._db.execute("PRAGMA max_page_count = 1000000")
    file.write(large)
    assert len(rows(file.path, "SELECT * FROM steps")) == 1
    file.close()


def test_a_folder_in_which_nothing_can_be_written() -> None:
    with pytest.raises(BadValue, match="nothing can be recorded in the folder /proc: "):
        RunFile.create("/proc", RUN)


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_file_that_is_gone_is_an_error(tmp_path: Path, how: str) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    if how == "moved":
        file.path.rename(tmp_path / "elsewhere")
    else:
        file.path.unlink()
    if how == "replaced":
        file.path.write_bytes(b"")
    with pytest.raises(RecordGone, match=r"run-1\.sqlite was removed or moved"):
        file.write(step(1))
    file.close()


def test_large_objects_are_files_named_by_their_hash(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    small, large = b"s" * INLINE_BYTES, b"l" * (INLINE_BYTES + 1)
    given = [artifact(0, small), artifact(1, large), artifact(2, large)]
    file.write(step(1, artifacts=given))
    found = rows(file.path, "SELECT object, file FROM artifacts")
    assert found[0] == (small, None)
    (name,) = {name for _, name in found[1:]}
    assert [each.name for each in (tmp_path / "objects").iterdir()] == [name]
    assert read_object(tmp_path, name) == large
    (tmp_path / "objects" / name).write_bytes(large + b"!")
    with pytest.raises(ValueError, match="was changed"):
        read_object(tmp_path, name)
    file.close()


@pytest.mark.parametrize("kind", ["a file", "read-only", "null"])
def test_a_folder_that_cannot_be(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "file"
    folder.write_text("")
    place = {"a file": str(folder), "read-only": "/proc/here", "null": "a\0b"}[kind]
    with pytest.raises(BadValue, match=r"the folder .* cannot be created: "):
        RunFile.create(place, RUN)


MOUNTS = r"""
22 1 8:1 / / rw - ext4 /dev/root rw
23 22 0:1 / /home rw shared:1 - nfs4 server:/home rw
24 23 0:2 / /home/me/my\040disk rw - xfs /dev/sdb rw
25 22 0:3 / /remote rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/srv/runs", False),
        ("/home", True),
        ("/home/me/runs", True),
        ("/homes/me", False),
        ("/home/me/my disk/runs", False),
        ("/remote/x", True),
    ],
)
def test_on_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, expected: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.lstrip())
    monkeypatch.setattr(run_file, "_MOUNTS", mounts)
    assert on_network(folder) is expected


def test_on_a_network_there_is_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_file, "on_network", lambda folder: True)
    file = RunFile.create(str(tmp_path), RUN)
    assert rows(file.path, "PRAGMA journal_mode") != [("wal",)]
    file.write(step(1))
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {".run-1.lock", "run-1.sqlite", "run-1.sqlite-journal"}
    file.close()
    assert [each.name for each in tmp_path.iterdir()] == ["run-1.sqlite"]


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_nothing_is_recorded_where_every_user_may_write(tmp_path: Path, mode: int) -> None:
    """Who puts a ``run-1.sqlite-wal`` there changes what is read."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    text = f"recorded in the folder {shared}: every user may write to it"
    with pytest.raises(BadValue, match=text):
        RunFile.create(str(shared), {})
    with pytest.raises(BadValue, match=text):
        Ledger(shared)
    assert not list(shared.iterdir())


def test_after_a_sync_all_is_in_the_file_itself(tmp_path: Path) -> None:
    file = RunFile.create(str(tmp_path), RUN)
    file.write(step(1))
    with closing(sqlite3.connect(file.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT step FROM steps").fetchall()
        file.write(step(2))
        file.sync()  # a reader does not hold it up
    file.sync()
    file.write(step(3))
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(file.path.read_bytes())
    assert rows(copy, "SELECT step FROM steps") == [(1,), (2,)]
    file.close()
