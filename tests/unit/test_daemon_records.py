"""Records of daemons, by which those without a socket are found."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from creamas_sc.errors import StartError
from creamas_sc.runtime.paths import daemon_socket
from supervisor.cli import daemon_connection
from supervisor.cli.main import main
from supervisor.daemon.lock import listens
from supervisor.daemon.process import Settings, run
from supervisor.daemon.records import last_log, own_log, recorded, running, running_here
from tests.support.cli_fakes import FakeClient, lost

NAME = "noted"


def test_a_daemon_is_recorded_while_it_runs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with recorded(logs, NAME):
        (found,) = running(logs, NAME)
        assert (found.pid, found.socket) == (os.getpid(), daemon_socket(NAME))
        assert found.runtime == os.environ["XDG_RUNTIME_DIR"]
        assert running_here(logs, NAME) == found
        assert running(logs, "other") == []
    assert running(logs, NAME) == []
    assert list(logs.iterdir()) == []


def test_one_in_another_folder_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(tmp_path, NAME):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
        assert len(running(tmp_path, NAME)) == 1
        assert running_here(tmp_path, NAME) is None


def test_two_of_a_name_have_a_log_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "logs"
    plain = logs / f"{NAME}.log"
    with recorded(logs, NAME):
        assert own_log(logs, NAME) == last_log(logs, NAME) == plain
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("XDG_RUNTIME_DIR", "/run/else where")
            other = logs / f"{NAME}@run-else where-creamas.log"
            assert own_log(logs, NAME) == other
            assert own_log(logs, "other") == logs / "other.log"
            plain.touch()
            assert last_log(logs, NAME) == plain
            other.touch()
            os.utime(plain, (0, 0))
            assert last_log(logs, NAME) == other
        assert own_log(logs, NAME) == last_log(logs, NAME) == plain
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert own_log(logs, NAME).name.endswith(f"creamas-{os.getuid()}.log")


@pytest.mark.parametrize("how", ["ended", "zombie", "another start"])
def test_a_record_of_a_process_that_is_gone_is_removed(tmp_path: Path, how: str) -> None:
    with recorded(tmp_path, NAME):
        (path,) = tmp_path.iterdir()
        known = json.loads(path.read_text())
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if how == "another start":
        known["started"] += 1
    else:
        known["pid"] = process.pid
        start = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        known["started"] = int(start)
    if how == "ended":
        process.wait()
    path.write_text(json.dumps(known))
    assert running(tmp_path, NAME) == []
    assert not path.exists()
    process.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"place": null}', "3"])
def test_what_is_no_record_is_left(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{NAME}.1.daemon").write_text(text)
    assert running(tmp_path, NAME) == []
    assert (tmp_path / f"{NAME}.1.daemon").exists()


def test_only_the_user_can_write_a_record(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with recorded(tmp_path, "name"):
            (record,) = tmp_path.iterdir()
            assert record.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_records_are_no_records_where_other_users_may_write(tmp_path: Path) -> None:
    """Those of other users could name any process of this one for `stop` to end."""
    folder = tmp_path / "shared"
    with recorded(folder, "name"):
        assert running(folder, "name")
        folder.chmod(0o777)
        assert running(folder, "name") == []


def test_no_second_one_starts_while_the_files_of_the_first_are_gone(tmp_path: Path) -> None:
    with recorded(tmp_path, NAME):
        with pytest.raises(StartError, match=rf"runs already \(pid {os.getpid()}\).* within 5 s"):
            run(Settings(NAME, tmp_path), lambda _: pytest.fail("announced"))


# ---- found by the command line


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The command line, for a daemon of this test's process that a client cannot reach at first."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path))
    monkeypatch.setenv("CREAMAS_DAEMON", NAME)
    monkeypatch.setattr(daemon_connection, "LOOK_SECONDS", -0.9)
    client = FakeClient()

    def connect(daemon: str, timeout: float) -> FakeClient:
        if not listens(daemon_socket(daemon)):
            raise lost()
        return client

    monkeypatch.setattr("creamas_sc.client.connect_sync", connect)
    return client


Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("verb", ["status", "ls", "kill"])
def test_a_daemon_without_a_socket_is_named(
    tmp_path: Path, run_here: FakeClient, capsys: Captured, verb: str
) -> None:
    with recorded(tmp_path, NAME):
        assert main([verb, *(["one"] if verb == "kill" else [])]) == (4 if verb == "status" else 69)
    told = capsys.readouterr().err
    assert f"the daemon {NAME!r} (pid {os.getpid()}) is running, but nothing listens at " in told
    assert "stop` ends it" in told


def test_a_daemon_that_puts_its_socket_back_is_waited_for(
    tmp_path: Path, run_here: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = daemon_socket(NAME)

    def sleep(_: float) -> None:
        sock.bind(os.fspath(path))
        sock.listen()

    with socket.socket(socket.AF_UNIX) as sock, recorded(tmp_path, NAME):
        monkeypatch.setattr("time.sleep", sleep)
        assert main(["kill", "novelty"]) == 0
    path.unlink()
    assert run_here.killed == ["novelty"]


def test_stop_ends_a_daemon_without_a_socket(tmp_path: Path, run_here: FakeClient) -> None:
    code = (
        "import sys, signal, pathlib, supervisor.daemon.records as r\n"
        f"with r.recorded(pathlib.Path({str(tmp_path)!r}), {NAME!r}):\n"
        "    print('ready', flush=True); signal.sigwait([signal.SIGTERM])\n"
    )
    blocked = {signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert main(["stop"]) == 0
            assert process.wait(5) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_daemon_elsewhere_is_told_of(
    tmp_path: Path, run_here: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    other = tmp_path / "other"
    with recorded(tmp_path, NAME):
        here = os.environ["XDG_RUNTIME_DIR"]
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(other))
        assert main(["stop"]) == 69
        told = capsys.readouterr().err
        assert (
            f"pid {os.getpid()} listens at {here}/creamas/noted.sock (XDG_RUNTIME_DIR={here})"
            in told
        )
        assert main(["status"]) == 3


def test_without_a_folder_of_its_own_a_command_takes_the_daemons(
    tmp_path: Path, run_here: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    path = daemon_socket(NAME)
    with socket.socket(socket.AF_UNIX) as sock, recorded(tmp_path, NAME):
        sock.bind(os.fspath(path))
        sock.listen()
        here = os.environ["XDG_RUNTIME_DIR"]
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert main(["kill", "novelty"]) == 0
        assert f"XDG_RUNTIME_DIR is not set: taking {here}" in capsys.readouterr().err
        assert "XDG_RUNTIME_DIR" not in os.environ
    path.unlink()
    assert run_here.killed == ["novelty"]
