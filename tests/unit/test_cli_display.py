"""How progress and values look."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from creamas_sc.simulation_files.plan import Batch
from supervisor.cli import output
from supervisor.cli.display import Live, Plain, Result, event_line, picture, progress_line
from supervisor.cli.exits import Failure
from supervisor.cli.follow import on_terminal
from supervisor.cli.output import clock, count, moment_in_short, pairs, table
from supervisor.cli.params import (
    Classes,
    address,
    agent_batch,
    json_object,
)
from tests.support.cli_fakes import progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_most_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()

    def shown() -> list[str]:
        return capsys.readouterr().out.splitlines()

    with Plain("sim", clock) as plain:
        plain.update(progress("stepping", 1, 9))
        assert len(shown()) == 1
        clock.now += 0.5
        plain.update(progress("stepping", 2, 9))
        assert shown() == []
        clock.now += 0.5
        plain.update(progress("stepping", 2, 9))
        assert "step 2 of 9" in shown()[0]
        clock.now += 5
        plain.update(progress("stepping", 2, 9))  # nothing new
        assert shown() == []
        plain.update(progress("stepping", 3, 9))
        clock.now += 0.1
        plain.update(progress("paused", 4, 9))
        assert len(shown()) == 2  # a change of state is shown at once
        plain.update(progress("paused", 4, 9, artifacts=7))
        assert shown() == []
    assert "7 artifacts" in shown()[0]  # and the last word in any case


def test_json_of_steps_that_failed_to_end_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with Result("sim", json=True) as last:
        last.update(progress("idle", 3, 3))
    assert json.loads(capsys.readouterr().out)["step"] == 3
    with pytest.raises(KeyError), Result("sim", json=True):
        raise KeyError
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("details", "line"),
    [
        (progress(), "sim: idle, 24 agents, 2 slaves, 1 artifact, 1 other client"),
        (
            progress("stepping", 1500),
            "sim: stepping, step 1,500, 1,234 acts/s, 24 agents, 2 slaves, 1 artifact, "
            "1 other client",
        ),
        (
            progress("failed", 2, 3, seconds_left=None, error="a\nb"),
            "sim: failed, step 2 of 3, 24 agents, 2 slaves, 1 artifact, 1 other client, error: a b",
        ),
    ],
)
def test_a_line_of_progress(details: Any, line: str) -> None:
    assert progress_line("sim", details) == line


def test_the_picture_has_a_bar_where_there_is_an_end() -> None:
    def drawn(details: Any, width: int = 120) -> str:
        file = io.StringIO()
        console = Console(file=file, width=width, force_terminal=True, color_system=None)
        console.print(picture("sim", details, width))
        return file.getvalue()

    whole = drawn(progress("stepping", 5, 10))
    for part in ("sim", "stepping", "step 5 of 10", "━" * 14, "1:01 left", "24 agents", "Ctrl-C"):
        assert part in whole
    assert "━" not in drawn(progress("stepping", 5))
    assert "pauses after this step" in drawn(progress("stepping", 5, 10, pausing=True))
    assert "[bold]no" in drawn(progress("failed", 5, 10, error="[bold]no"))
    for width in (30, 40, 60, 80):  # without the bar if need be, nothing else is left out
        lines = drawn(progress("stepping", 5, 10), width).splitlines()
        assert max(map(len, lines)) <= width
        whole = " ".join(" ".join(lines).split())
        for part in ("sim stepping", "step 5 of 10", "acts/s", "1:01 left", "24 agents", "Ctrl-C"):
            assert part in whole


def shown_on(rows: list[str], text: str, width: int) -> None:
    """Do what a terminal does that wraps lines, with the few controls that a picture needs."""
    for part in re.findall(r"\x1b\[[?\d;]*[a-zA-Z]|[^\x1b]", text):
        if part == "\x1b[2K":
            rows[-1] = ""
        elif part == "\x1b[1A":
            rows.pop()  # what is below the cursor has been erased
        elif part == "\n":
            rows.append("")
        elif part != "\r" and not part.startswith("\x1b"):
            rows[-1] += part
            assert len(rows[-1]) <= width


@pytest.mark.parametrize("widths", [(80, 50, 30), (30, 80, 30), (80, 79), (80, 20, 20, 100, 20)])
@pytest.mark.parametrize("event", [False, True])
def test_a_picture_leaves_nothing_behind_where_the_terminal_gets_narrower(
    widths: tuple[int, ...], event: bool
) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=20, force_terminal=True, color_system=None)
    rows = ["before", ""]
    with Live("sim", console) as live:
        for step, width in enumerate(widths):
            rows = [row[i : i + width] for row in rows for i in range(0, len(row) or 1, width)]
            console.width = width
            if event:
                live.event("closing", {})
            live.update(progress("stepping", step, 1000))
            shown_on(rows, file.getvalue(), width)
            file.seek(0)
            file.truncate()
            seen = " ".join(" ".join(rows).split())
            assert seen.startswith("before ")
            assert seen.count("step ") == seen.count("Ctrl-C") == 1
            assert f"step {step} of" in seen
            assert seen.count("is being closed") == (step + 1) * event


@pytest.mark.parametrize(
    ("term", "display"),
    [("xterm", Live), ("tmux-256color", Live), ("dumb", Plain), ("unknown", Plain), ("", Plain)],
)
def test_a_terminal_that_draws_nothing_gets_lines(
    term: str, display: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert type(on_terminal("sim")) is display
    assert output.colored(terminal) is (display is Live)
    terminal.isatty = lambda: False  # type: ignore[method-assign]
    assert type(on_terminal("sim")) is Plain


def test_other_events_are_told_as_they_are() -> None:
    assert event_line("new", {"a": 1, "b": None}) == "new a 1"


def test_restarts_are_shown() -> None:
    details = {"address": "tcp://a:1/0", "pid": 8, "number": 2, "agents": 1, "connections": 0}
    details |= {"host_manager": True, "checkpoint": False, "failures": ("its checkpoint: odd",)}
    assert event_line("slave_restarted", details) == (
        "restarted a slave: tcp://a:1/0 (pid 8), restart 2, 1 agent, 0 connections, host manager; "
        "NOT restored: its checkpoint: odd"
    )
    assert progress_line("sim", progress(restarts=2)).endswith(", 2 restarts")


def test_steps_that_were_cut_short_are_counted() -> None:
    assert progress_line("sim", progress(overran=1)).endswith(", 1 step cut short")


def test_a_step_that_does_not_repeat_itself_is_shown() -> None:
    details = {"age": 1200, "why": ["one was called", "another one waited"]}
    assert event_line("not_repeatable", details) == (
        "step 1,200 does not repeat itself: one was called; another one waited"
    )


# ---- output


def test_columns_are_as_wide_as_they_must_be() -> None:
    assert table(("A", "LONG"), [("value", None), ("", 12)]) == [
        "A      LONG",
        "value  -",
        "-      12",
    ]
    assert pairs({"a": 1, "long": ""}) == ["a     1", "long  -"]
    assert pairs({"a": ["one", "two"], "b": []}) == ["a  one, two", "b  -"]
    assert pairs({}) == []


def test_columns_of_a_terminal_are_wrapped_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("colours", 7, "the slave a (pid 1) was killed by SIGKILL"), ("a" * 12, 8, "closed")]
    whole = table(("NAME", "PID", "CAUSE"), rows)
    assert len(whole) == 3
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", terminal)
    for width, indent in ((80, 0), (62, 2), (60, 0)):
        monkeypatch.setenv("COLUMNS", str(width))
        assert table(("NAME", "PID", "CAUSE"), rows, indent=indent) == whole
    monkeypatch.setenv("COLUMNS", "42")
    assert table(("NAME", "PID", "CAUSE"), rows, indent=2) == [
        "NAME          PID  CAUSE",
        "colours       7    the slave a (pid 1)",
        "                   was killed by SIGKILL",
        "aaaaaaaaaaaa  8    closed",
    ]
    monkeypatch.setenv("COLUMNS", "22")
    assert table(("NAME", "PID", "CAUSE"), rows[1:]) == [
        "NAME       PID  CAUSE",
        "aaaaaaaaa  8    closed",
        "aaa",
    ]
    monkeypatch.setenv("COLUMNS", "5")
    assert max(map(len, table(("NAME", "PID", "CAUSE"), rows))) <= 23


def test_today_has_no_date_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr("time.localtime", lambda epoch=now: time.gmtime(epoch))
    assert moment_in_short(now - 60) == "07:59:00"
    assert moment_in_short(now - 86400) == "2027-01-14"


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (61, "1:01"), (3661, "1:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_counts() -> None:
    assert [count(n, "agent") for n in (0, 1, 1000)] == ["0 agents", "1 agent", "1,000 agents"]


def test_what_cannot_be_encoded_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, "ascii"))
    output.set_up()
    print("café \udcff")
    assert raw.getvalue() == b"caf\\xe9 \\udcff\n"


# ---- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("localhost:5556", ("localhost", 5556)),
        ("[::1]:0", ("::1", 0)),
        ("a.b:65535", ("a.b", 65535)),
    ],
)
def test_addresses(text: str, value: tuple[str, int]) -> None:
    assert address(text, "--addr") == value


DIGITS = "1" * 5000


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (
            lambda text: address(text, "--addr"),
            ["", "a", "a:", ":1", "a:x", "a:99999"],
        ),
        (lambda text: json_object(text, "--env-kwargs"), ["", "[]", "1", "{"]),
        (
            lambda text: agent_batch(text, Classes(), {}),
            ["", "a", "a:b", "a:b=", "a:b=-1", "b=1"],
        ),
        (lambda text: address(text, "--slave"), [f"a:{DIGITS}"]),
        (lambda text: agent_batch(text, Classes(), {}), [f"a:b={DIGITS}"]),
        (lambda text: Classes().of(text, "--env-cls"), ["a", ":a", "a:", "/:a"]),
    ],
)
def test_wrong_values_name_the_option(read: Callable[[str], object], texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(Failure, match=r"^--\S+ '.*': expected ") as caught:
            read(text)
        assert caught.value.code == 2


def test_classes_by_name_and_by_file(tmp_path: Any) -> None:
    (tmp_path / "painters.py").touch()
    (tmp_path / "no-module.py").touch()
    classes = Classes()
    assert classes.of("package.module:Cls", "--env-cls") == "package.module:Cls"
    assert classes.folders == []
    for _ in range(2):
        assert classes.of(f"{tmp_path}/painters.py:Painter", "--agents") == "painters:Painter"
    assert classes.folders == [str(tmp_path)]
    with pytest.raises(Failure, match=r"no-module\.py is not a valid module name"):
        classes.of(f"{tmp_path}/no-module.py:Painter", "--agents")


def test_batches_of_agents() -> None:
    assert agent_batch("painters:Painter=24", Classes(), {}) == Batch("painters:Painter", 24)
