"""The commands service and completion, and what a daemon says to systemd."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from supervisor.cli import service
from supervisor.cli.app import VERBS, build
from supervisor.cli.main import main
from supervisor.daemon.notify import PER_INTERVAL, Notifier

Run = Callable[..., tuple[int, str, str]]
build_once = cache(build)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command, where systemd runs; its exit code, standard output and standard error."""
    for name in ("XDG_RUNTIME_DIR", "CREAMAS_DAEMON", "CREAMAS_CLOSE_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    monkeypatch.setattr("supervisor.cli.app.build", build_once)
    monkeypatch.setattr(service, "BOOTED", tmp_path)
    monkeypatch.setattr(service, "LINGERING", tmp_path / "linger")

    def command(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def unit_of(tmp_path: Path, name: str = "creamas-supervisor") -> Path:
    return tmp_path / "config" / "systemd" / "user" / f"{name}.service"


def test_the_unit_is_written_and_what_to_type_is_said(run: Run, tmp_path: Path) -> None:
    code, out, err = run("service")
    path = unit_of(tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith(f"{path} is written.\n")
    text = path.read_text()
    for line in (
        "Type=notify", "KillMode=mixed", "Restart=on-failure", "OOMPolicy=continue",
        "WatchdogSec=60", f"Environment=CREAMAS_LOG_FOLDER={tmp_path}/logs",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert "run --daemon default\n" in text
    for words in (
        "systemctl --user daemon-reload", "systemctl --user enable --now creamas-supervisor",
        "loginctl enable-linger", "journalctl --user -u creamas-supervisor", f"&& rm {path}",
    ):  # fmt: skip
        assert words in out


def test_written_again_it_is_there_already_and_one_of_another_text_is_kept(
    run: Run, tmp_path: Path
) -> None:
    path = unit_of(tmp_path)
    run("service")
    assert run("service")[1].startswith(f"{path} was there already.\n")
    found = json.loads(run("service", "--json")[1])
    assert found == {"path": str(path), "written": False, "unit": path.read_text()}
    path.write_text("mine")
    code, _, err = run("service")
    assert code == 0
    assert "is in creamas-supervisor.service.before now" in err
    assert path.with_name("creamas-supervisor.service.before").read_text() == "mine"
    assert "Type=notify" in path.read_text()


def test_what_is_said_where_the_user_lingers_or_has_no_manager(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert "cannot be reached from here" in run("service")[1]
    monkeypatch.setattr(service.getpass, "getuser", lambda: "ada")  # type: ignore[attr-defined]
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / "ada").touch()
    (tmp_path / "run" / "systemd").mkdir(parents=True)
    (tmp_path / "run" / "systemd" / "private").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    out = run("service")[1]
    assert "ada lingers already" in out
    assert "enable-linger" not in out
    assert "cannot be reached" not in out
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "systemctl is not on the PATH" in run("service")[1]


def test_without_systemd_nothing_is_written_and_the_other_way_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BOOTED", tmp_path / "none")
    code, out, err = run("service")
    assert (code, out) == (1, "")
    assert "systemd does not run on this machine" in err
    assert "@reboot" in err
    assert not unit_of(tmp_path).exists()
    assert json.loads(run("service", "--print", "--json")[1])["unit"].startswith("[Unit]")
    code, out, err = run("service", "--daemon", "exp", "--print")
    assert (code, err) == (0, "")
    assert "run --daemon exp\n" in out


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/bin/run", "/bin/run"),
        ("A=b c", '"A=b c"'),
        ("50%$HOME", "50%%$HOME"),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("", '""'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, quoted: str) -> None:
    assert service._quoted(word) == quoted


def test_a_program_in_an_odd_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_program", lambda: "/opt/50% of $all/creamas-supervisor")
    out = run("service", "--print")[1]
    assert '\nExecStart="/opt/50%% of $$all/creamas-supervisor" run --daemon default\n' in out


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "50% of $all logs"))
    run("service", "--daemon", "exp")
    path = unit_of(tmp_path, "creamas-supervisor-exp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = ["systemd-analyze", "verify", "--user", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


# ---- what is said to systemd


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def messages(sock: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(sock.recv(1 << 12).decode().partition("\n")[0])
        except BlockingIOError:
            return found


def test_what_systemd_has_set_is_taken_away_from_children(tmp_path: Path) -> None:
    environ = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()), "HOME": "/",
    }  # fmt: skip
    assert Notifier.take(environ).watchdog_seconds == 3.0
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "0"},
    ],
)
def test_without_a_watchdog_of_its_own(environ: dict[str, str]) -> None:
    assert Notifier.take(environ).watchdog_seconds is None


def test_ready_and_stopping(heard: socket.socket) -> None:
    notifier = Notifier(heard.getsockname())
    notifier.ready("listening")
    notifier.stopping()
    assert messages(heard) == ["READY=1", "STOPPING=1"]


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0creamas-{os.getpid()}")
        sock.setblocking(False)
        Notifier(f"@creamas-{os.getpid()}").ready("up")
        assert messages(sock) == ["READY=1"]


def test_a_systemd_that_is_gone_or_does_not_read_holds_nothing_up(
    heard: socket.socket, tmp_path: Path
) -> None:
    Notifier(str(tmp_path / "gone")).ready("up")
    Notifier().ready("up")
    for _ in range(5000):
        Notifier(heard.getsockname()).stopping()
    assert messages(heard)


async def test_signs_of_life_come_as_long_as_the_supervisor_answers(
    heard: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    answers: Any = trio.Event()
    answers.set()

    async def ping() -> None:
        await answers.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Notifier(heard.getsockname(), 3.0).watch, ping)
        await trio.sleep(3.0 - 0.01)
        assert messages(heard) == ["WATCHDOG=1"] * PER_INTERVAL
        answers = trio.Event()  # it hangs
        await trio.sleep(30)
        assert messages(heard) == []
        nursery.cancel_scope.cancel()
    await Notifier(heard.getsockname()).watch(ping)  # none is wanted: it ends at once


# ---- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_reads_the_completion_of_all_commands(run: Run, shell: str, tmp_path: Path) -> None:
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    for verbs in VERBS.values():
        for verb in verbs:
            assert verb.__name__ in out
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "completion"
    file.write_text(out)
    subprocess.run([shell, "-n", str(file)], check=True)


def test_completion_is_for_the_users_shell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run("completion")[1].startswith("# Fish completion for creamas-supervisor")
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    code, _, err = run("completion")
    assert code == 2
    assert "bash, zsh, fish" in err


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_and_options(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "completion"
    file.write_text(run("completion", "bash")[1])

    def completed(*words: str) -> list[str]:
        line = " ".join(words)
        script = (
            f"source {file}; COMP_WORDS=({line}); [[ -z '{words[-1]}' ]] && COMP_WORDS+=('');"
            f" COMP_CWORD={len(words) - 1}; _creamas_supervisor; echo ${{COMPREPLY[@]}}"
        )
        found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        return found.stdout.split()

    assert completed("creamas-supervisor", "att") == ["attach"]
    assert "--until-done" in completed("creamas-supervisor", "attach", "--u")


def test_the_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.strip()
