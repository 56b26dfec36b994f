"""A daemon's start and end: one for each name, after any kill, and by every signal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from creamas_sc.errors import BadValue, CallRefused, ConnectionLost, CreamasError, StartError
from creamas_sc.runtime.paths import daemon_socket, runtime_folder
from supervisor.cli.main import main
from supervisor.daemon.process import Settings, start
from tests.support import daemon_clients, daemons, processes
from tests.support.daemon_clients import ask, connected, until
from tests.support.daemons import BOUND_SECONDS, NAME, READY, running

GONE_SECONDS = 10.0
KILLED_SECONDS = 2.0  # it does not give the host its time


def settings(folder: Path) -> Settings:
    return Settings(NAME, folder)


# ---- one of a name


@pytest.mark.slow
def test_of_several_started_at_once_one_comes_up(tmp_path: Path) -> None:
    started = [daemons.spawn(tmp_path) for _ in range(3)]
    try:
        reports = [daemons.report(read) for _, read in started]
        up = [each for (each, _), report in zip(started, reports, strict=True) if report == READY]
        assert len(up) == 1
        refusals = [report for report in reports if report != READY]
        for refusal in refusals:  # the latter from one that has waited in vain for its answer
            assert re.fullmatch(
                r"daemon 'test' (runs already|is starting or ending) "
                rf"\(pid {up[0].process.pid}\)",
                refusal,
            )
    finally:
        for daemon, _ in started:
            daemons.end(daemon)


@pytest.mark.slow
@pytest.mark.parametrize(
    "victim",
    [
        "run",
        pytest.param("keeper", marks=pytest.mark.slow),
        pytest.param("zygote", marks=pytest.mark.slow),
        "supervisor",
    ],
)
def test_after_a_kill_nothing_is_left_and_the_next_starts_at_once(
    tmp_path: Path, victim: str
) -> None:
    daemon, read = daemons.spawn(tmp_path)
    assert daemons.report(read) == READY
    try:
        trio.run(ask, daemon.socket, "create", "one", daemon_clients.order(slaves=1), {})
        pids = daemon.family
        assert {"host one", "slave-0"} < set(pids)
        left = processes.open_pidfds(pids.values())
        os.kill(pids[victim], signal.SIGKILL)
        with running(tmp_path) as other:  # over a stale socket, as fast as the lock is free
            assert processes.wait_gone(left, 0) == []
            assert trio.run(ask, other.socket, "ls") == []
        assert daemon.process.wait(GONE_SECONDS) == (-signal.SIGKILL if victim == "run" else 1)
        lost = "the supervisor of daemon test was lost, with all simulations"
        assert (lost in daemon.log) == (victim != "run")
        if victim == "run":
            gone = f"the daemon (pid {daemon.process.pid}) is gone"
            assert f"simulation one ended: {gone}" in daemon.log
    finally:
        daemons.end(daemon)


@pytest.mark.slow
def test_its_loss_is_seen_where_the_end_of_children_is_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # inherited
    try:
        daemon, read = daemons.spawn(tmp_path)
    finally:
        signal.signal(signal.SIGCHLD, before)
    try:
        assert daemons.report(read) == READY
        os.kill(daemon.family["supervisor"], signal.SIGKILL)
        assert daemon.process.wait(GONE_SECONDS) == 1
    finally:
        daemons.end(daemon)


def test_a_start_names_the_file_or_process_in_its_way(tmp_path: Path) -> None:
    path = daemon_socket(NAME)
    path.write_text("precious")
    try:
        with pytest.raises(StartError, match=r"test\.sock is in the way and is not a socket"):
            start(settings(tmp_path))
        assert path.read_text() == "precious"
    finally:
        path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(
            StartError, match=r"another process \(pid \d+\) is listening on .*test\.sock"
        ):
            start(settings(tmp_path))
    with running(tmp_path):  # its socket is stale now
        pass
    assert not path.exists()


# ---- where it is


@pytest.mark.slow
def test_one_whose_folder_vanishes_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runtime"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path))
    with running(tmp_path) as daemon:
        trio.run(ask, daemon.socket, "create", "one", daemon_clients.order(slaves=1), {})
        shutil.rmtree(folder)
        with pytest.raises(StartError, match=rf"runs already \(pid {daemon.process.pid}\), but"):
            start(settings(tmp_path))
        assert main(["status", "--daemon", NAME]) == 0  # waits until the socket is back
        with pytest.raises(StartError, match=rf"runs already \(pid {daemon.process.pid}\)$"):
            start(settings(tmp_path))
        assert [each["name"] for each in trio.run(ask, daemon.socket, "ls")] == ["one"]
        trio.run(ask, daemon.socket, "stop")
        assert daemon.process.wait(GONE_SECONDS) == 0
    assert list((folder / "creamas").glob("test.*")) == []


def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = runtime_folder()
    folder.chmod(0o750)
    try:
        with pytest.raises(CreamasError, match="must be a folder that you own, with mode 0700"):
            start(settings(tmp_path))
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("name", ["", ".x", "a/b", "../a", "a b", "a" * 65, "ä", "a\n"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadValue, match="not a name for a daemon"):
        start(Settings(name, tmp_path))


def test_a_path_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    with pytest.raises(CreamasError, match="longer than the 107 bytes"):
        start(settings(tmp_path))


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot log into .*test\.log: Not a directory"):
        start(settings(tmp_path / "file"))


@pytest.mark.slow
async def test_a_full_disk_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "test.log").symlink_to("/dev/full")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "one.log").symlink_to("/dev/full")
    with trio.fail_after(BOUND_SECONDS), running(tmp_path) as daemon:
        async with connected(daemon.socket) as client:
            await client.create("one", slaves=1)
            assert (await client.call("close", "one"))["graceful"]
            await client.call("stop")
        assert daemon.process.wait(GONE_SECONDS) == 0


# ---- in the background


def test_start_returns_when_clients_can_connect(tmp_path: Path) -> None:
    path = start(settings(tmp_path)).socket
    status = trio.run(ask, path, "status")
    assert status["name"] == NAME
    assert (status["socket"], status["log"]) == (str(path), str(tmp_path / "test.log"))
    assert (status["simulations"], status["clients"]) == (0, 1)
    comm = Path(f"/proc/{status['pid']}/comm").read_text().strip()
    assert comm == "creamas-daemon"
    assert os.readlink(f"/proc/{status['pid']}/cwd") == "/"
    assert os.getsid(status["pid"]) == status["pid"]
    # It keeps no pipe that its starter waits on: the only one shows that its own tree has ended.
    (keeper,) = processes.children(status["pid"])
    assert pipes(status["pid"]) <= pipes(keeper)
    left = processes.open_pidfds([status["pid"]])
    assert trio.run(ask, path, "stop") == []
    assert processes.wait_gone(left, GONE_SECONDS) == []
    os.waitpid(status["pid"], 0)


def pipes(pid: int) -> set[str]:
    """The pipes of which a process has an end."""
    targets = (os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
    return {target for target in targets if target.startswith("pipe:")}


def test_a_start_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StartError, match=r"ended before it was ready: see .*test\.log"):
        start(settings(tmp_path))


def test_a_start_has_a_deadline_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(StartError, match=r"not ready within 0.2 s; its log is .*test\.log"):
        start(settings(tmp_path), 0.2)


# ---- its end


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 0),
        (signal.SIGINT, 130),
        pytest.param(signal.SIGHUP, 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_closes_all_in_order(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with running(tmp_path) as daemon:
        trio.run(ask, daemon.socket, "create", "one", daemon_clients.order(slaves=2), {})
        left = processes.open_pidfds(daemon.family.values())
        daemon.process.send_signal(number)
        assert daemon.process.wait(GONE_SECONDS) == code
        assert processes.wait_gone(left, GONE_SECONDS) == []
        assert "simulation one ended: closed" in daemon.log
        assert not daemon.socket.exists()


@pytest.mark.slow
def test_a_second_signal_kills(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        trio.run(ask, daemon.socket, "create", "one", daemon_clients.order("ignore_request"), {})
        left = processes.open_pidfds(daemon.family.values())
        daemon.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(0.3)  # it gives the host its time
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(KILLED_SECONDS) == 128 + signal.SIGTERM
        assert processes.wait_gone(left, GONE_SECONDS) == []


def test_sigterm_to_the_supervisor_is_an_orderly_end(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        trio.run(ask, daemon.socket, "create", "one", daemon_clients.order(), {})
        os.kill(daemon.family["supervisor"], signal.SIGTERM)
        assert daemon.process.wait(GONE_SECONDS) == 0
        assert "simulation one ended: closed" in daemon.log


@pytest.mark.slow
async def test_stop_answers_all_who_ask_and_lets_nobody_in(tmp_path: Path) -> None:
    with trio.fail_after(BOUND_SECONDS), running(tmp_path) as daemon:
        async with connected(daemon.socket) as one, connected(daemon.socket) as two:
            await one.create("a", slaves=1)
            await one.create("b", "slow_to_stop")
            answers: list[Any] = []

            async def stop(client: daemon_clients.Client) -> None:
                answers.append(await client.call("stop", 1.0, b"now"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop, one)
                nursery.start_soon(stop, two)
                await until(two, "b", "closing")
                with pytest.raises(FileNotFoundError):
                    await daemon_clients.connect_socket(daemon.socket)
                with pytest.raises(CallRefused, match="the daemon is stopping"):
                    await two.create("c")
            assert answers[0] == answers[1]
            stopped = [(each["name"], each["payload"], each["ended_by"]) for each in answers[0]]
            assert stopped == [
                ("a", b"closed with now", "request"),
                ("b", b"late with now", "request"),
            ]
        assert daemon.process.wait(GONE_SECONDS) == 0


@pytest.mark.slow
async def test_a_stop_goes_on_without_the_client_who_asked(tmp_path: Path) -> None:
    with trio.fail_after(BOUND_SECONDS), running(tmp_path) as daemon:
        async with connected(daemon.socket) as client:
            await client.create("b", "slow_to_stop")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call, "stop")
                await until(client, "b", "closing")
                nursery.cancel_scope.cancel()
        assert daemon.process.wait(GONE_SECONDS) == 0


@pytest.mark.slow
async def test_clients_of_a_daemon_that_is_killed_see_the_end(tmp_path: Path) -> None:
    with trio.fail_after(BOUND_SECONDS), running(tmp_path) as daemon:
        async with connected(daemon.socket) as client:
            await client.create("one")
            daemon.process.kill()
            await client.connection.closed.wait()
            with pytest.raises(ConnectionLost):
                await client.call("ls")


@pytest.mark.slow
def test_two_of_a_name_in_two_places_have_logs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as one:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("XDG_RUNTIME_DIR", str(tmp_path / "else"))
            with running(tmp_path) as other:
                log = Path(trio.run(ask, other.socket, "status")["log"])
                assert log != tmp_path / f"{NAME}.log"
                trio.run(ask, other.socket, "create", "there", daemon_clients.order(), {})
                assert "simulation there starts" in log.read_text()
                assert log.with_suffix("").joinpath("there.log").exists()
        assert "there" not in one.log
        assert str(other.socket) not in one.log


# ---- under systemd


@pytest.mark.slow
def test_systemd_hears_that_it_is_ready_and_alive_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(BOUND_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")

        def heard() -> str:
            return systemd.recv(1 << 12).decode()

        with running(tmp_path) as daemon:
            assert heard() == f"READY=1\nSTATUS=listening at {daemon.socket}"
            assert [heard() for _ in range(3)] == ["WATCHDOG=1"] * 3
            variables = Path(f"/proc/{daemon.family['supervisor']}/environ").read_text()
            assert "NOTIFY_SOCKET" not in variables
            assert "WATCHDOG_USEC" not in variables
            supervisor = daemon.family["supervisor"]
            os.kill(supervisor, signal.SIGSTOP)
            try:
                systemd.settimeout(0.6)  # as long as systemd waits, and longer
                with pytest.raises(TimeoutError):
                    _ = [heard() for _ in range(3)]  # those that are on the way
            finally:
                os.kill(supervisor, signal.SIGCONT)
            systemd.settimeout(BOUND_SECONDS)
            assert heard() == "WATCHDOG=1"
            daemon.process.send_signal(signal.SIGTERM)
            while (said := heard()) == "WATCHDOG=1":
                pass
            assert said.startswith("STOPPING=1\n")
            assert daemon.process.wait(BOUND_SECONDS) == 0
