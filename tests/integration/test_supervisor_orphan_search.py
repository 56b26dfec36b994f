"""Keeper and zygote killed together: the next start ends what was forked away, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.errors import CreamasError
from creamas_sc.mp import EnvManager
from creamas_sc.runtime.paths import daemon_socket, runtime_folder
from supervisor.cli.main import main
from supervisor.daemon.process import Settings, start
from tests.support import daemon_clients, daemons, processes, trees
from tests.support.daemon_clients import ask
from tests.support.daemons import BOUND_SECONDS, NAME, READY
from tests.support.processes import kill_together, record_of
from tests.support.trees import script_with_actors

GONE_SECONDS = 10.0


def records() -> set[Path]:
    return set(runtime_folder().glob("*.tree"))


@contextmanager
def left_over(*entries: str) -> Iterator[tuple[dict[int, int], str]]:
    """Pidfds of what a dead tree has left, and its record; nothing is left after the block."""
    with script_with_actors(*entries) as pids:
        record = record_of(pids["keeper"])
        left = processes.open_pidfds(pids["forked"])
        actors = processes.open_pidfds(pids[entry] for entry in entries)
        try:
            kill_together(pids["keeper"], pids["zygote"])
            assert processes.wait_gone(actors, GONE_SECONDS) == []
            for pid in left:
                os.kill(pid, 0)  # it lives
            yield left, record
        finally:
            _end(inheritors(record))


def inheritors(record: str) -> list[int]:
    """Pids of the living processes that have inherited a record."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"CREAMAS_TREE={record}".encode() in environ:
                found.append(int(entry.name))
    return found


def _end(pids: Iterable[int]) -> None:
    """Kill the living, and reap all orphans of actors: they are this process's children."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in processes.children(os.getpid()):
        name = Path(f"/proc/{pid}/comm").read_text()
        if name.startswith(("actor-", "slave-", "host ")):
            os.waitpid(pid, 0)


@contextmanager
def sleeper(**environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that belongs to no tree, but may have a tree's environment."""
    command = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
    with subprocess.Popen(
        command, env={**os.environ, **environ}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def start_and_end() -> None:
    """A tree that starts and ends in order."""

    async def main() -> None:
        async with trees.open_supervisor() as supervisor:
            await supervisor.start(trees.order("a", "obey"))

    trio.run(main)


def test_the_next_start_ends_the_orphans() -> None:
    with left_over("fork_away", "fork_away_and_loop") as (left, record):
        assert len(left) == 2
        start_and_end()
        assert processes.wait_gone(left, GONE_SECONDS) == []
        assert records() == set(), record


@pytest.mark.slow
def test_two_starts_at_once_end_the_orphans_once() -> None:
    with left_over("fork_away") as (left, _):
        starts = [threading.Thread(target=start_and_end) for _ in range(3)]
        for each in starts:
            each.start()
        for each in starts:
            each.join(BOUND_SECONDS)
            assert not each.is_alive()
        assert processes.wait_gone(left, GONE_SECONDS) == []
        assert records() == set()


@pytest.mark.slow
def test_other_trees_and_processes_are_left_alone() -> None:
    with (
        script_with_actors("fork_away") as living,
        sleeper() as before,
        left_over("fork_away") as dead,
    ):
        left, record = dead
        folder = runtime_folder()
        with (
            sleeper() as same_name,
            sleeper(CREAMAS_TREE="") as nothing,
            sleeper(CREAMAS_TREE=str(folder / "never.tree")) as unknown,
            sleeper(CREAMAS_TREE=f"{record}x") as longer,
            sleeper(OTHER_CREAMAS_TREE=record) as other_variable,
            sleeper(CREAMAS_TREE=record_of(living["keeper"])) as of_a_living_tree,
        ):
            start_and_end()
            assert processes.wait_gone(left, GONE_SECONDS) == []
            spared = (before, same_name, nothing, unknown, longer, other_variable, of_a_living_tree)
            assert [each.poll() for each in spared] == [None] * len(spared)
            for pid in (living["fork_away"], *living["forked"]):
                os.kill(pid, 0)
            assert records() == {Path(record_of(living["keeper"]))}


@pytest.mark.slow
def test_a_descendant_with_a_tree_of_its_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with left_over("fork_away") as (left, record):
        # A script that an agent started: it bears the record of the agent's tree.
        monkeypatch.setenv("CREAMAS_TREE", record)
        with script_with_actors("obey") as nested:
            monkeypatch.delenv("CREAMAS_TREE")
            assert record_of(nested["script"]) == record
            assert record_of(nested["obey"]) == record_of(nested["keeper"]) != record
            assert processes.wait_gone(left, GONE_SECONDS) == []  # its own start has ended the rest
            start_and_end()
            for role in ("script", "obey"):
                os.kill(nested[role], 0)
        start_and_end()
        assert records() == set()


def test_a_tree_whose_record_was_removed_ends_as_ever(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> subprocess.Popen[bytes]:
        async with trees.open_supervisor() as supervisor:
            await supervisor.start(trees.order("a", "obey"))
            Path(record_of(supervisor.keeper.pid)).unlink()
        return supervisor.keeper

    assert trio.run(main).returncode == 0
    assert capfd.readouterr().err == ""


def test_without_a_record_slaves_run_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trees, "runtime_folder", lambda: tmp_path / "gone")
    start_and_end()
    said = capfd.readouterr().err
    assert said.startswith("what slaves fork away may be left behind: no record: ")
    assert said.count("\n") == 1


def test_without_a_private_folder_no_slave_runs_and_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "creamas"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(CreamasError, match=f"mode 0700: type 'chmod 700 {folder}'"):
        trio.run(_one_slave)
    assert os.listdir(folder) == []
    folder.chmod(0o700)
    trio.run(_one_slave)


async def test_what_an_actor_starts_belongs_to_its_tree() -> None:
    async with trees.open_supervisor() as supervisor:
        order = trees.order("a", "tell_place")
        order["environ"]["CREAMAS_TREE"] = "another.tree"  # of a client that is an actor itself
        (logged,) = await supervisor.start(order)
        environ = json.loads(logged["info"])["environ"]
        assert environ["CREAMAS_TREE"] == record_of(supervisor.keeper.pid)
        await supervisor.stop()


def test_the_start_of_a_multienvironment_ends_the_orphans() -> None:
    with left_over("fork_away") as (left, _):
        trio.run(_one_slave)
        assert processes.wait_gone(left, GONE_SECONDS) == []
        assert records() == set()


async def _one_slave() -> None:
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(("localhost", 0), Environment) as menv:
            await menv.spawn_slaves([("localhost", 0)], Environment, EnvManager)


# ---- daemons


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[dict[int, int]]:
    """A daemon whose whole tree was killed at once; pidfds of what its slave forked away."""
    daemon, read = daemons.spawn(tmp_path)
    assert daemons.report(read) == READY
    record = ""
    try:
        order = daemon_clients.order(slaves=1, runs="fork_away")
        trio.run(ask, daemon.socket, "create", "one", order, {})
        pids = daemon.family
        record = record_of(pids["keeper"])
        family = processes.open_pidfds(pids.values())
        kill_together(*(pids[role] for role in ("run", "keeper", "zygote", "supervisor")))
        daemon.process.wait(GONE_SECONDS)
        assert processes.wait_gone(family, GONE_SECONDS) == []
        left = processes.open_pidfds(inheritors(record))
        assert len(left) == 1
        yield left
    finally:
        daemon.process.kill()
        daemon.process.wait()
        _end(inheritors(record) if record else [])


@pytest.mark.slow
def test_after_a_daemon_was_killed_whole_the_next_starts_at_once(
    tmp_path: Path, killed: dict[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    path = daemon_socket(NAME)
    assert path.exists()
    assert main(["status", "--daemon", NAME]) == 3
    assert "start it with `creamas-supervisor start --daemon" in capfd.readouterr().err
    with daemons.running(tmp_path) as daemon:
        assert processes.wait_gone(killed, GONE_SECONDS) == []
        assert trio.run(ask, path, "ls") == []
        assert records() == {Path(record_of(daemon.family["keeper"]))}
    assert list(runtime_folder().glob(f"{NAME}.*")) == []
    assert records() == set()


@pytest.mark.slow
def test_another_daemon_clears_what_a_killed_one_has_left(
    tmp_path: Path, killed: dict[int, int]
) -> None:
    assert {"test.sock", "test.lock"} <= set(os.listdir(runtime_folder()))
    path = start(Settings("other", tmp_path)).socket
    assert processes.wait_gone(killed, GONE_SECONDS) == []
    assert list(runtime_folder().glob(f"{NAME}.*")) == []
    pid = trio.run(ask, path, "status")["pid"]
    trio.run(ask, path, "stop")
    os.waitpid(pid, 0)
    assert list(runtime_folder().glob("other.*")) == []
    assert records() == set()


@pytest.mark.slow
def test_a_living_daemon_and_what_is_no_daemons_are_left_alone(tmp_path: Path) -> None:
    foreign = runtime_folder() / "foreign.sock"
    with socket.socket(socket.AF_UNIX) as other, daemons.running(tmp_path) as daemon:
        other.bind(str(foreign))
        other.listen()
        foreign.with_suffix(".lock").touch()
        path = start(Settings("other", tmp_path)).socket
        pid = trio.run(ask, path, "status")["pid"]
        assert trio.run(ask, daemon.socket, "ls") == []
        assert foreign.exists()
        trio.run(ask, path, "stop")
        os.waitpid(pid, 0)
    foreign.unlink()
