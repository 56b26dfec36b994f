"""The command dump: what it prints of answers, and of processes that give none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.runtime.stack_dumps import Answer
from supervisor.cli import dump, output
from supervisor.cli.main import main
from tests.support.cli_fakes import ADDRS, NAME, FakeClient

Shown = Callable[..., str]


def frame(file: str, line: int, name: str, of_user: bool = True, agent: str = "") -> list[Any]:
    return [file, line, name, of_user, agent]


def place(*frames: list[Any], count: int = 1, agents: Any = (), waits: Any = ()) -> dict[str, Any]:
    return {
        "count": count,
        "agents": list(agents),
        "of_agents": count if agents else 0,
        "name": "creamas_sc.core.step_loop._Worker.run",
        "waits": list(waits),
        "frames": list(frames),
    }


def awaited(**more: Any) -> dict[str, Any]:
    where = {"environment": "tcp://localhost:5557/", "number": "0"}
    return {"method": "judge", "calls": 1, "agents": 1, **where, **more}


def report(*places: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "about": {"address": "tcp://localhost:5556/"},
        "running": None,
        "places": list(places),
        "own": [place(frame("/x/site-packages/trio/_run.py", 9, "sleep", False), count=12)],
        "threads": [],
        "unread": False,
        **more,
    }


@pytest.fixture
def shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shown:
    """What the command prints if the host and a slave answer so."""
    client = FakeClient()
    monkeypatch.setattr("creamas_sc.client.connect_sync", lambda daemon, timeout: client)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    monkeypatch.chdir(tmp_path)

    def printed(host: Answer, slave: Answer, *words: str) -> str:
        def answer(pids: list[int], seconds: float) -> list[Answer]:
            assert pids == [7, 8]
            return [host, slave]

        monkeypatch.setattr(dump, "ask", answer)
        assert main(["dump", NAME, *words]) == 0
        return capsys.readouterr().out

    return printed


IDLE = Answer("sleeping", report())


def test_a_slave_that_waits_one_that_is_stopped_and_whom_the_step_waits_for(shown: Shown) -> None:
    waits = {"address": "tcp://localhost:5000/", "waits_for": {ADDRS[0]: 12.34, ADDRS[1]: 3.0}}
    stopped = Answer("stopped", None, (), "a signal has stopped it (SIGSTOP)")
    text = shown(Answer("sleeping", report(about=waits)), stopped)
    assert (
        text
        == f"""\
host, tcp://localhost:5000/, pid 7: sleeping
  its step has taken 12.3 s, and waits for:
    {ADDRS[0]}
    {ADDRS[1]}
  no agent acts here; 12 tasks of the library wait (see --all)

slave-0, {ADDRS[0]}, pid 8: stopped
  a signal has stopped it (SIGSTOP)
"""
    )


def test_agents_with_lines_of_their_files_unless_these_were_changed(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "painters.py"
    file.write_text("async def act(self):\n    await self.ask(other)\n")
    agents = [f"Painter tcp://localhost:5556/{number}" for number in range(1, 6)]
    waiting = place(
        frame("/x/site-packages/trio/_run.py", 9, "run", False),
        frame(str(file), 2, "Painter.act", True, agents[0]),
        frame("/x/site-packages/creamas_sc/rpc/network.py", 5, "Network._call_there", False),
        count=1200,
        agents=agents,
        waits=[awaited(calls=1200)],
    )
    runs = place(frame(str(file), 1, "Critic.judge", True, "Critic tcp://localhost:5556/9"))
    busy = Answer("running", report(waiting, running=runs))
    text = shown(IDLE, busy).partition("\n\n")[2]
    assert (
        text
        == f"""\
slave-0, tcp://localhost:5556/, pid 8: running
  runs:
    painters.py:1 in Critic.judge
  Painter /1, /2, /3, /4, /5 and 1,195 more wait for answers of judge of {ADDRS[1]}:
    painters.py:2 in Painter.act
"""
    )
    monkeypatch.setattr(FakeClient, "inspect", _long_ago(FakeClient.inspect))
    text = shown(IDLE, busy)
    assert "    painters.py:2 in Painter.act\n      await self.ask(other)\n" in text


def _long_ago(inspect: Any) -> Any:
    """The files are older than the simulation."""
    return lambda *args, **kwargs: {**inspect(*args, **kwargs), "since": 1e12}


def test_called_agents_and_what_library_code_they_wait_in(shown: Shown) -> None:
    waiting = place(
        frame("/a.py", 2, "Painter.act", True, "Painter tcp://localhost:5556/1"),
        frame("/x/site-packages/creamas_sc/rpc/network.py", 5, "Network._call_here", False),
        frame("/a.py", 7, "Critic.judge", True, "Critic tcp://localhost:5556/2"),
        frame("/x/site-packages/trio/_timeouts.py", 71, "sleep_forever", False),
        frame("/x/site-packages/trio/_core/_traps.py", 71, "wait", False),
        agents=["Painter tcp://localhost:5556/1"],
    )
    text = shown(IDLE, Answer("sleeping", report(waiting)))
    assert text.endswith("""
  Painter /1 waits:
    /a.py:2 in Painter.act
    /a.py:7 in Critic.judge  (Critic /2)
    trio/_timeouts.py:71 in sleep_forever
""")
    text = shown(IDLE, Answer("sleeping", report(waiting)), "--all")
    assert "    creamas_sc/rpc/network.py:5 in Network._call_here\n" in text
    assert "  12 of run wait:\n    trio/_run.py:9 in sleep\n" in text


def test_an_agent_that_waits_in_several_tasks(shown: Shown) -> None:
    agent = "Painter tcp://localhost:5556/1"
    waiting = place(frame("/a.py", 2, "Painter.judge", True, agent), count=3, agents=[agent])
    text = shown(IDLE, Answer("sleeping", report({**waiting, "of_agents": 1})))
    assert "  Painter /1 waits (3 tasks):\n" in text


def test_whom_agents_wait_for_in_several_environments(shown: Shown) -> None:
    agents = ["Painter tcp://localhost:5556/1", "Critic tcp://localhost:5556/2"]
    act = frame("/a.py", 2, "Painter.act", True, agents[0])
    waits = [
        awaited(environment="tcp://b:1/", calls=4, agents=3),
        awaited(environment="", number="7"),
    ]
    text = shown(IDLE, Answer("sleeping", report(place(act, count=5, agents=agents, waits=waits))))
    assert text.endswith("""
  Painter /1, Critic /2 and 3 more wait for answers:
    of judge of 3 agents of tcp://b:1/
    of judge of /7 here
    /a.py:2 in Painter.act
""")
    (one,) = [place(act, agents=agents[:1], waits=[awaited(environment="", number="7")])]
    text = shown(IDLE, Answer("sleeping", report(one)))
    assert "  Painter /1 waits for the answer of judge of /7 here:\n" in text


def test_long_titles_are_broken_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output.wrapped("word " * 30, indent=2) == ["  " + "word " * 30]
    monkeypatch.setattr(output, "_columns", lambda: 40)
    lines = output.wrapped("word " * 30, indent=2)
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("  word")
    assert lines[1].startswith("    word")


def test_threads_of_users_and_too_many_tasks(shown: Shown) -> None:
    threads = [
        {"name": "download", "frames": [frame("/a.py", 3, "fetch")]},
        {"name": "Trio thread 0", "frames": [frame("/lib/threading.py", 3, "wait", False)]},
    ]
    text = shown(IDLE, Answer("sleeping", report(threads=threads, unread=True)))
    assert "  thread download:\n    /a.py:3 in fetch\n" in text
    assert "Trio thread" not in text
    assert text.endswith("  there are more tasks than could be read at once\n")


def test_a_process_in_c_code_shows_its_main_thread(shown: Shown) -> None:
    lines = ("Current thread 0x1 (most recent call first):", '  File "/a.py", line 3 in act')
    text = shown(IDLE, Answer("running", None, lines, "its main thread is in other code"))
    assert text.endswith(f"""
slave-0, {ADDRS[0]}, pid 8: running
  its main thread is in other code
  its main thread, the innermost call first:
    File "/a.py", line 3 in act
""")


def test_for_programs(shown: Shown) -> None:
    host, slave = json.loads(shown(IDLE, Answer("stopped", None, (), "why"), "--json"))
    assert (host["slot"], host["pid"], host["state"]) == ("host", 7, "sleeping")
    assert host["report"]["places"] == []
    assert slave == {
        "slot": "slave-0", "name": "slave-0", "pid": 8, "state": "stopped",
        "report": None, "main_thread": [], "problem": "why",
    }  # fmt: skip
