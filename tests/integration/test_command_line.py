"""The command line with a real daemon: in this process where possible, else in another."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.runtime.paths import daemon_socket
from supervisor.cli.main import main
from tests.support.fake_daemon import FakeDaemon
from tests.support.programs import ROOT, Program

BOUND_SECONDS = 15.0
COMMAND = [sys.executable, "-m", "supervisor.cli"]
AGENTS = """
import time

from creamas_sc import Artifact, CreativeAgent, expose


class Painter(CreativeAgent):
    def __init__(self, environment, colour="red"):
        super().__init__(environment)
        self.colour = colour
        print("painting in", colour)

    @expose
    async def act(self):
        self.publish(Artifact(self, self.colour, domain=str))


class Clumsy(CreativeAgent):
    @expose
    async def act(self):
        raise ValueError("dropped the brush")


class Archivist(CreativeAgent):
    def close(self, folder=None):
        with open(f"{folder}/archive", "x"):
            raise OSError("no shelf is left")


class Endless(CreativeAgent):
    @expose
    async def act(self):
        while True:
            pass


class Unborn(CreativeAgent):
    def __init__(self, environment):
        raise ValueError("not today")


class Stubborn(CreativeAgent):
    @expose
    async def act(self):
        pass

    def close(self, folder=None):
        time.sleep(60)
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon for all tests here, and a folder with agents, which is the current one."""
    folder = tmp_path_factory.mktemp("command-line")
    (folder / "agents_of_test.py").write_text(AGENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        patch.setenv("CREAMAS_LOG_FOLDER", str(folder / "logs"))
        patch.setenv("CREAMAS_DAEMON", "cli")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.chdir(folder)
        assert main(["start"]) == 0
        try:
            yield folder
        finally:
            assert main(["stop", "--timeout", "0.1"]) == 0


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command here; its exit code, standard output and standard error."""

    def command(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture
def sim(run: Run) -> Iterator[str]:
    """A simulation of four painters in two slaves."""
    words = ["--slaves", "2", "--agents", "agents_of_test.py:Painter=4", "--seed", "1"]
    assert run("create", "sim", *words)[0] == 0
    yield "sim"
    main(["kill", "sim"])


def ask(run: Run, *words: str) -> Any:
    """What a verb prints for programs."""
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def started(*words: str) -> Program:
    """The command in another process, which is killed at the end of the block."""
    return Program([*COMMAND, *words], Path.cwd())


def ending(program: Program) -> tuple[int, str]:
    """Its exit code and standard error."""
    code, _, err = program.finish(BOUND_SECONDS)
    return code, err


# ---- what a simulation leaves


@pytest.mark.slow
def test_a_record_is_exported_while_its_simulation_lives_and_afterwards(run: Run) -> None:
    agents = ["--slaves", "2", "--agents", "agents_of_test.py:Painter=4", "--record", "kept"]
    assert run("create", "recorded", *agents)[0] == 0
    try:
        assert run("step", "recorded", "3", "--wait")[0] == 0
        words = ["export", "recorded", "of.csv", "--table"]
        assert run(*words, "steps") == (0, "of.csv: 3 rows of steps\n", "")
        assert run(*words, "artifacts") == (0, "of.csv: 12 rows of artifacts\n", "")
    finally:
        assert run("kill", "recorded")[0] == 0
    assert run(*words, "steps") == (0, "of.csv: 3 rows of steps\n", "")
    assert run("export", "kept", "of.csv", "--table", "steps")[1] == "of.csv: 3 rows of steps\n"


# ---- a simulation's life


def test_a_tour(run: Run, daemon: Path, sim: str) -> None:
    assert ask(run, "status")["simulations"] == 1
    code, out, err = run("step", sim, "20", "--wait")
    assert (code, err) == (0, "")
    last = "sim: idle, step 20 of 20, 4 agents, 2 slaves, 80 artifacts, 0 other clients"
    assert out.splitlines()[-1] == last
    assert run("wait", sim) == (0, f"{last}\n", "")
    (summary,) = ask(run, "ls")
    assert (summary["name"], summary["host"]["step"], summary["host"]["agents"]) == (sim, 20, 4)
    assert run("ls")[1].splitlines()[1].split()[:4] == [sim, "running", "idle", "20/20"]
    about = ask(run, "inspect", sim)
    assert [each["slot"] for each in about["processes"]] == ["host", "slave-0", "slave-1"]
    assert about["about"]["seed"] == about["host"]["seed"] == 1
    assert about["cwd"] == str(daemon)
    shown = run("inspect", sim)[1]
    assert "processes:" in shown
    assert "localhost:0" not in shown
    for pid, address in zip(about["host"]["pids"], about["host"]["addrs"], strict=True):
        assert re.search(rf"^  slave-\d +{pid} +{address} ", shown, re.MULTILINE)
    code, out, _ = run("close", sim, "--folder", "results")
    assert code == 0
    assert out.count("request") == 2
    assert out.endswith("sim was closed; its seed was 1\n")
    assert run("ls", "--json") == (0, "[]\n", "")
    (record,) = [each for each in ask(run, "ls", "--all") if each["pid"] == about["pid"]]
    assert (record["state"], record["cause"]) == ("ended", "closed")
    assert run("wait", sim) == (0, "", "creamas-supervisor: sim was closed\n")
    assert ask(run, "wait", sim)["state"] == "ended"


def test_pause_and_resume(run: Run, sim: str) -> None:
    assert ask(run, "step", sim, "--forever")["state"] == "stepping"
    code, _, err = run("step", sim)
    assert (code, err.count("\n")) == (1, 1)
    code, _, err = run("wait", sim, "--timeout", "0.05")
    assert (code, err.count("\n")) == (75, 1)
    assert ask(run, "pause", sim)["state"] == "paused"
    assert ask(run, "resume", sim)["state"] == "stepping"
    assert "paused" in run("pause", sim)[1]


def test_steps_that_fail(run: Run) -> None:
    words = ["--slaves", "1", "--agents", "agents_of_test:Clumsy=1"]
    assert ask(run, "create", "clumsy", *words)["agents"] == 1
    for verb in (["step", "clumsy", "3", "--wait"], ["wait", "clumsy"]):
        code, out, err = run(*verb)
        assert code == 1
        assert "failed, step 1 of 3" in out.splitlines()[-1]
        assert err.count("\n") == 1
        assert "ValueError" in err
        assert "dropped the brush" in err
    assert run("kill", "clumsy") == (0, "clumsy was killed\n", "")


def test_agents_that_cannot_be_made_leave_nothing(run: Run) -> None:
    agents = {"agents_of_test:Unborn=1": "not today", "agents_of_test:Missing=1": "Missing"}
    for agent, reason in agents.items():
        code, out, err = run("create", "unborn", "--slaves", "2", "--agents", agent)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert reason in err
        assert ask(run, "ls") == []


def test_what_create_refuses(run: Run, sim: str) -> None:
    code, _, err = run("create", sim)
    assert (code, err.count("\n")) == (1, 1)
    assert f"there is a simulation '{sim}' already" in err
    code, _, err = run("create", "other", "--env-cls", "nowhere:Environment")
    assert (code, err.count("\n")) == (1, 1)
    assert "nowhere" in err


def test_arguments_of_agents(run: Run, daemon: Path) -> None:
    words = ["--slaves", "1", "--agents", "agents_of_test:Painter=1"]
    words += ["--agent-kwargs", '{"colour": "green"}', "--slave-kwargs", '{"name": "studio"}']
    assert run("create", "green", *words)[0] == 0
    assert run("close", "green")[0] == 0
    assert "painting in green" in run("logs", "green")[1]


def test_a_slave_that_will_not_end_is_killed(run: Run) -> None:
    words = ["--slaves", "1", "--agents", "agents_of_test:Stubborn=1"]
    assert run("create", "stubborn", *words)[0] == 0
    code, out, err = run("close", "stubborn", "--timeout", "0.1")
    assert code == 1
    assert "stubborn was closed" in out
    assert "was killed" in err


# ---- following


def test_agents_without_act_are_named(run: Run) -> None:
    words = ["--slaves", "2", "--agents", "agents_of_test.py:Archivist=2"]
    code, _, err = run("create", "idlers", *words)
    assert code == 0
    assert err == (
        "creamas-supervisor: agents_of_test:Archivist has no method act, so its agents do nothing "
        "in a step\n"
    )
    assert run("kill", "idlers")[0] == 0


def test_a_close_that_cannot_save_fails_and_says_so_once(run: Run, daemon: Path) -> None:
    words = ["--slaves", "2", "--agents", "agents_of_test.py:Archivist=2"]
    assert run("create", "archive", *words)[0] == 0
    code, _, err = run("close", "archive", "--folder", "of/archive")
    assert code == 1
    assert err.count("no shelf is left") == 2
    archives = sorted((daemon / "of" / "archive").rglob("archive"))
    assert [path.parent.name for path in archives] == ["slave-0", "slave-1"]


def test_attach_on_a_terminal(run: Run, sim: str) -> None:
    run("step", sim, "1000000")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*COMMAND, "attach", sim])
    try:
        shown = read_until(terminal, b"acts/s")
        for part in (b"sim", b"stepping", b"of 1,000,000", b"4 agents", b"2 slaves", b"client"):
            assert part in shown
        os.write(terminal, b"\x03")
        end = read_until(terminal, None)
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    lines = end.decode().split("creamas-supervisor: ")
    assert lines[1].strip() == "detached; the simulation goes on"
    assert "Traceback" not in lines[0]
    assert ask(run, "pause", sim)["step"] > 0


def read_until(terminal: int, text: bytes | None) -> bytes:
    """What a terminal shows until ``text`` does; None for all to its end."""
    shown = b""
    deadline = time.monotonic() + BOUND_SECONDS
    while text is None or text not in shown:
        left = deadline - time.monotonic()
        assert left > 0, shown
        if select.select([terminal], [], [], left)[0]:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                data = b""
            if not data:
                assert text is None, shown
                return shown
            shown += data
    return shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_attach_detaches_by_a_signal(run: Run, sim: str, number: int, code: int) -> None:
    with started("attach", sim) as process:
        process.read_until("idle")
        process.signal(number)
        assert ending(process) == (
            code,
            "creamas-supervisor: detached; the simulation goes on\n",
        )
    assert ask(run, "ls")[0]["state"] == "running"


def test_attach_tells_of_a_lost_slave_and_the_end(run: Run, sim: str) -> None:
    slave = ask(run, "inspect", sim)["processes"][1]["pid"]
    with started("attach", sim) as people, started("attach", sim, "--json") as programs:
        people.read_until("idle")
        json.loads(programs.read_until("steps"))
        os.kill(slave, signal.SIGKILL)
        assert "lost: the slave tcp://" in people.read_until("slave")
        assert json.loads(programs.read_until("slave_lost"))["pid"] == slave
        assert main(["close", sim]) == 0
        assert ending(people) == (0, "creamas-supervisor: sim was closed\n")
        assert ending(programs) == (0, "")


def test_attach_until_done(run: Run, sim: str) -> None:
    run("step", sim, "3")
    code, out, err = run("attach", sim, "--until-done")
    assert (code, err) == (0, "")
    assert "step 3 of 3" in out.splitlines()[-1]


def test_a_simulation_that_is_killed(run: Run, sim: str) -> None:
    with started("attach", sim) as following, started("wait", sim) as waiting:
        following.read_until("idle")
        run("step", sim, "--forever")
        following.read_until("stepping")
        assert run("kill", sim)[0] == 0
        code, err = ending(following)
        assert (code, err.count("\n")) == (1, 1)
        assert "killed on request" in err
        # `wait` may have found it idle, at first.
        assert ending(waiting)[0] in (0, 1)
    assert run("wait", sim)[0] == 1


def test_a_reader_may_stop_reading_events(sim: str) -> None:
    main(["step", sim, "--forever"])
    with started("attach", sim, "--json") as program:
        program.read_until("")
        assert program.process.stdout is not None
        program.process.stdout.close()
        program.process.stdout = None
        assert ending(program) == (0, "")


# ---- logs


def test_logs(run: Run, sim: str) -> None:
    code, out, err = run("logs", sim)
    assert (code, err) == (0, "")
    assert "painting in red" in out.splitlines()
    entries = json.loads(run("logs", sim, "--json")[1])
    assert {"printed": "painting in red"} in entries
    assert any(entry.get("simulation") == sim for entry in entries)
    assert json.loads(run("logs", sim, "--json", "-n", "0")[1]) == []
    assert len(run("logs", sim, "-n", "2")[1].splitlines()) == 2
    assert sim in run("logs")[1]
    with started("logs", sim, "-f") as ended, started("logs", "-f", "-n", "9999") as interrupted:
        ended.read_until("painting in red")
        interrupted.read_until("listens")
        main(["close", sim])
        interrupted.signal(signal.SIGINT)
        assert ending(ended) == (0, "")
        assert ending(interrupted) == (130, "creamas-supervisor: interrupted\n")
    assert "painting in red" in run("logs", sim)[1]


# ---- the daemon


def test_a_daemon_that_runs_already(run: Run) -> None:
    for verb in ("start", "run"):
        code, out, err = run(verb)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "'cli'" in err


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 0)],
)
def test_run_in_the_foreground(run: Run, number: int, code: int) -> None:
    with started("run", "--daemon", "front") as process:
        path = daemon_socket("front")
        assert process.read_until("/") == f"the daemon 'front' is running and listens at {path}"
        assert run("create", "one", "--daemon", "front", "--slaves", "1")[0] == 0
        process.signal(number)
        got, err = ending(process)
    assert got == code
    assert all("event" in json.loads(line) for line in err.splitlines())
    assert run("status", "--daemon", "front")[0] == 3


def test_run_tells_programs_where_it_listens() -> None:
    with started("run", "--daemon", "front", "--json") as process:
        lines = "".join(process.read_until("") for _ in range(4))
        assert json.loads(lines) == {"daemon": "front", "socket": str(daemon_socket("front"))}
        assert main(["stop", "--daemon", "front"]) == 0
        assert ending(process)[0] == 0


def test_start_and_stop(run: Run) -> None:
    path = str(daemon_socket("second"))
    assert ask(run, "start", "--daemon", "second") == {"daemon": "second", "socket": path}
    assert run("create", "one", "--daemon", "second", "--slaves", "1")[0] == 0
    (stopped,) = ask(run, "stop", "--daemon", "second")
    assert (stopped["name"], stopped["graceful"], stopped["errors"]) == ("one", True, [])
    assert [slave["ended_by"] for slave in stopped["slaves"]] == ["request"]
    # Nothing of it is left: another of that name starts at once.
    listens = f"the daemon 'second' is running and listens at {path}\n"
    assert run("start", "--daemon", "second") == (0, listens, "")
    assert run("stop", "--daemon", "second") == (0, "the daemon 'second' has ended\n", "")
    code, out, _ = run("status", "--daemon", "second", "--json")
    assert (code, json.loads(out)) == (3, {"name": "second", "state": "not running"})


def test_a_start_that_takes_too_long(run: Run) -> None:
    code, out, err = run("start", "--daemon", "slow", "--timeout", "0")
    assert (code, out, err.count("\n")) == (75, "", 1)


def test_without_a_daemon_the_exit_code_is_69(run: Run) -> None:
    verbs = [["ls"], ["stop"], ["create", "a"], *([verb, "a"] for verb in ("inspect", "close"))]
    verbs += [[verb, "a"] for verb in ("attach", "step", "pause", "resume", "wait", "kill")]
    for words in verbs:
        code, out, err = run(*words, "--daemon", "nobody", "--json")
        assert (code, out, err.count("\n")) == (69, "", 1)
        assert "creamas-supervisor start --daemon nobody" in err


def test_a_daemon_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREAMAS_ANSWER_TIMEOUT", "0.1")
    path = daemon_socket("mute")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(os.fspath(path))
        mute.listen()
        code, out, err = run("status", "--daemon", "mute", "--json")
        assert (code, json.loads(out)["state"], err.count("\n")) == (4, "unknown", 1)
        assert run("ls", "--daemon", "mute")[0] == 69
    assert run("status", "--daemon", "mute")[0] == 3
    path.unlink()


def test_exit_codes_with_a_daemon_of_another_key(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = daemon_socket("stranger")
    fake = FakeDaemon(path)
    try:
        fake.key = b"x" * 32
        assert run("ls", "--daemon", "stranger")[0] == 77
        assert run("status", "--daemon", "stranger")[0] == 4
    finally:
        fake.close()
        path.unlink()
    folder = tmp_path / "creamas"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    code, _, err = run("ls")
    assert (code, err.count("\n")) == (77, 1)
    assert "0700" in err


@pytest.mark.slow
def test_dump_shows_an_endless_act_and_names_a_stopped_slave(run: Run) -> None:
    words = ["--slaves", "2", "--agents", "agents_of_test.py:Endless=1"]
    assert run("create", "stuck", *words)[0] == 0
    try:
        _, busy, stopped = json.loads(run("dump", "stuck", "--json")[1])
        assert busy["report"]["running"] is None
        assert run("step", "stuck", "1")[0] == 0
        give_up_at = time.monotonic() + BOUND_SECONDS
        while " in Endless.act" not in run("dump", "stuck")[1]:
            assert time.monotonic() < give_up_at
        os.kill(stopped["pid"], signal.SIGSTOP)
        text = run("dump", "stuck")[1]
    finally:
        assert run("kill", "stuck")[0] == 0
    host, endless, silent = text.split("\n\n")
    assert "its step has taken" in host
    assert f"pid {busy['pid']}: running\n  runs:\n    agents_of_test.py:" in endless
    assert f"pid {stopped['pid']}: stopped\n  a signal has stopped it" in silent


@pytest.mark.slow
def test_top_on_a_terminal_shows_slaves_and_takes_keys(run: Run, sim: str) -> None:
    ask(run, "step", sim, "--forever")
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [*COMMAND, "top", "--every", "0.1"])
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        shown = read_until(terminal, b"slave 1")
        assert b"stepping" in shown
        assert not termios.tcgetattr(terminal)[3] & termios.ICANON
        os.write(terminal, b"p")
        read_until(terminal, b"sim pauses after this step")
        assert ask(run, "pause", sim)["state"] == "paused"
        os.write(terminal, b"r")
        read_until(terminal, b"sim goes on")
        os.write(terminal, b"\x1a")  # Ctrl-Z does nothing
        os.write(terminal, b"\x03")
        end = read_until(terminal, b"interrupted")
        assert termios.tcgetattr(terminal)[3] & termios.ICANON
        end += read_until(terminal, None)
        assert b"Traceback" not in end
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert ask(run, "pause", sim)["step"] > 0
