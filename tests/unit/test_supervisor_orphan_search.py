"""Which processes are left over, and which records are over; then the same with files."""

from __future__ import annotations

import fcntl
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from supervisor.tree import orphans
from supervisor.tree.orphans import Bearer, Mark, Record, over, victims

HERE = ("boot", "pid:[1]")
OWNER = Mark(10, 1000)
KEEPER = Mark(20, 1005)
DEAD = Record("dead.tree", False, HERE, OWNER, KEEPER)
LIVING = Record("living.tree", True, HERE, Mark(30, 2000), Mark(40, 2005))
LEFT = Bearer(Mark(50, 1010), "dead.tree")
SHELL = Bearer(Mark(51, 1020), "dead.tree", LEFT.mark.pid, terminal=True)

# ---- which processes are left over


def test_what_bears_a_dead_trees_record_is_left_over() -> None:
    other = Bearer(Mark(51, 1005), "dead.tree")  # within one tick of the keeper's start
    assert victims([DEAD, LIVING], HERE, [LEFT, other]) == [LEFT, other]


@pytest.mark.parametrize(
    ("records_", "place", "seen"),
    [
        pytest.param([DEAD], HERE, [Bearer(Mark(50, 1010), "x.tree")], id="unknown record"),
        pytest.param([DEAD._replace(held=True)], HERE, [LEFT], id="zygote lives"),
        pytest.param([DEAD], HERE, [Bearer(KEEPER, "dead.tree"), LEFT], id="keeper lives"),
        pytest.param([DEAD], HERE, [Bearer(KEEPER, "other.tree"), LEFT], id="keeper lives apart"),
        pytest.param([DEAD], ("later", HERE[1]), [LEFT], id="another boot"),
        pytest.param([DEAD], (HERE[0], "pid:[2]"), [LEFT], id="another pid namespace"),
        pytest.param([DEAD], HERE, [Bearer(Mark(50, 1004), "dead.tree")], id="older than it"),
        pytest.param(
            [DEAD, LIVING], HERE, [Bearer(Mark(60, 2010), "living.tree")], id="of a living tree"
        ),
        pytest.param(
            [DEAD, LIVING], HERE, [Bearer(LIVING.owner, "dead.tree")], id="owns a living tree"
        ),
        pytest.param([DEAD], HERE, [LEFT._replace(terminal=True)], id="has a terminal"),
        pytest.param(
            [DEAD],
            HERE,
            [LEFT, SHELL, SHELL._replace(mark=Mark(52, 1030), parent=51, terminal=False)],
            id="serves a terminal or was started at it",
        ),
        pytest.param([], HERE, [LEFT], id="no record"),
    ],
)
def test_nobody_else_is(
    records_: list[Record], place: tuple[str, str], seen: Sequence[Bearer]
) -> None:
    assert victims(records_, place, seen) == []


def test_a_later_process_with_an_owners_or_keepers_pid_protects_nothing() -> None:
    heir = Bearer(Mark(LIVING.owner.pid, 3000), "dead.tree")
    keepers = Bearer(Mark(KEEPER.pid, 3000), "dead.tree")
    assert victims([DEAD, LIVING], HERE, [heir, keepers]) == [heir, keepers]


def test_pids_that_were_used_again_during_the_search_do_not_delay_it() -> None:
    pair = [LEFT._replace(parent=53), Bearer(Mark(53, 1010), "dead.tree", parent=LEFT.mark.pid)]
    assert victims([DEAD], HERE, pair) == pair


def test_a_terminal_protects_those_around_it_only() -> None:
    other = Bearer(Mark(53, 1010), "dead.tree", parent=1)
    assert victims([DEAD], HERE, [other, LEFT, SHELL]) == [other]


AT_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
if "terminal" in sys.argv:
    ends = os.openpty()
    fcntl.ioctl(ends[1], termios.TIOCSCTTY, 0)
print(flush=True)
signal.pause()
"""


@pytest.mark.parametrize("where", ["terminal", "nowhere"])
def test_a_process_at_a_terminal_is_known(where: str) -> None:
    command = [sys.executable, "-c", AT_TERMINAL, where]
    environ = {orphans.VARIABLE: "/some/folder/dead.tree"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            bearer = orphans._look_at(process.pid)
            assert bearer is not None
            assert bearer[1:] == ("dead.tree", os.getpid(), where == "terminal")
        finally:
            process.kill()


# ---- which records are over


def test_a_record_is_over_when_nobody_bears_it() -> None:
    assert over([DEAD, LIVING], HERE, []) == {"dead.tree"}
    assert over([DEAD, LIVING], HERE, [LEFT]) == set()


def test_a_record_of_an_older_boot_is_over_even_if_its_name_is_borne() -> None:
    assert over([DEAD, LIVING], ("later", HERE[1]), [LEFT]) == {"dead.tree"}


def test_a_record_of_another_pid_namespace_stays() -> None:
    assert over([DEAD, LIVING], (HERE[0], "pid:[2]"), []) == set()


# ---- files


def record(folder: Path) -> Path:
    return folder / f"{secrets.token_hex(16)}.tree"


def test_a_tree_holds_its_record_until_it_is_gone(tmp_path: Path) -> None:
    path = record(tmp_path)
    fd = orphans.write(str(path), os.getppid())
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(tmp_path) == [path.name]
        orphans.sweep(str(tmp_path))
        assert path.exists()
    finally:
        os.close(fd)
    orphans.sweep(str(tmp_path))
    # Its keeper, which is this very process, bears nothing: so nothing is left of it.
    assert not path.exists()


def test_a_record_is_never_taken_over(tmp_path: Path) -> None:
    path = record(tmp_path)
    fd = orphans.write(str(path), os.getppid())
    try:
        with pytest.raises(FileExistsError):
            orphans.write(str(path), os.getppid())
        assert os.listdir(tmp_path) == [path.name]
    finally:
        os.close(fd)


def test_a_record_that_another_sweep_is_at_is_left_to_it(tmp_path: Path) -> None:
    path = record(tmp_path)
    os.close(orphans.write(str(path), os.getppid()))
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        orphans.sweep(str(tmp_path))
        assert path.exists()
    orphans.sweep(str(tmp_path))
    assert not path.exists()


def test_what_is_no_record_is_left_alone(tmp_path: Path) -> None:
    os.close(orphans.write(str(tmp_path / "elsewhere"), os.getppid()))
    (tmp_path / "link.tree").symlink_to("elsewhere")
    (tmp_path / "text.tree").write_text("precious")
    (tmp_path / "folder.tree").mkdir()
    os.mkfifo(tmp_path / "pipe.tree")
    before = sorted(os.listdir(tmp_path))
    orphans.sweep(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        orphans.sweep(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        orphans.write(str(record(tmp_path / "gone")), os.getppid())
