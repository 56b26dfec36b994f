"""The command top: what it draws, what it streams, and what keys do."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, ConsoleDimensions

from creamas_sc.errors import CreamasError, DeadlineExceeded, HostLost
from supervisor.cli import top
from supervisor.cli.app import build
from supervisor.cli.main import main
from supervisor.cli.top_picture import HELP, picture, sparkline
from supervisor.cli.watching import STEP_RATE, Seen, Watches
from tests.support.cli_fakes import ADDRS, NAME, FakeClient, progress, summary

build_once = cache(build)


def slave(address: str = ADDRS[0], pid: int = 8, **more: Any) -> dict[str, Any]:
    return {
        "address": address, "pid": pid, "agents": 25, "restarts": 0, "state": "running",
        "cpu_seconds": 1.0, "memory_bytes": 50 << 20, "step_seconds": 0.0123,
        "waited_seconds": None, "cpu": 0.98, **more,
    }  # fmt: skip


def loads(*slaves: Any, time: float = 100.0) -> dict[str, Any]:
    host = {"address": "tcp://localhost:1/", "pid": 7, "state": "sleeping", "cpu": None}
    return {
        "time": time,
        "host": {**host, "cpu_seconds": 2.0, "memory_bytes": 40 << 20},
        "slaves": list(slaves),
    }


def seen(name: str = NAME, **more: Any) -> Seen:
    fields: dict[str, Any] = {
        "progress": progress("stepping", 812, 1000, steps_per_second=12.34),
        "loads": loads(slave(), slave(ADDRS[1], 9, state="stopped", waited_seconds=72.0)),
        "metrics": {"novelty": [0.0, 1.0, 0.5]},
        "log": [
            {"timestamp": "2026-11-27T23:50:49Z", "level": "warning", "event": "slow\nvery"},
            {"printed": "hello \x1b[31m"},
        ],
    }
    return Seen(summary(name=name), **{**fields, **more})


def drawn(
    shown: list[Seen], marked: str | None = NAME, metric: str | None = None, said: str = "",
    width: int = 80, height: int = 24, unicode: bool = True,
) -> list[str]:  # fmt: skip
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    size = ConsoleDimensions(width, height)
    console.print(picture("the daemon 'default'", shown, marked, metric, said, size, unicode))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_picture_at_80_columns() -> None:
    others = [seen("spiro", progress=progress(artifacts=1234567)), seen("new", progress=None)]
    assert drawn([seen(), *others]) == [
        "the daemon 'default'",
        "  NAME     STATE     STEP       STEPS/S  LEFT  AGENTS  ARTIFACTS",
        "> novelty  stepping  812/1,000     12.3  1:01      24          1",
        "  spiro    idle      0                -     -      24  1,234,567",
        "  new      running   -                -     -       -          -",
        "",
        "novelty ▁█▅ 0.5",
        "PROCESS                 STATE     PID  AGENTS  CPU  MEMORY        STEP",
        "host                    sleeping    7            -  40 MiB",
        "slave 0 localhost:5556  running     8      25  98%  50 MiB    0.0123 s",
        "slave 1 localhost:5557  stopped     9      25  98%  50 MiB  waits 1:12",
        "",
        "23:50:49 warning slow",
        "hello \\x1b[31m",
        HELP,
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("height", [5, 8, 10, 16, 24, 60])
def test_the_picture_fits_whatever_there_is(width: int, height: int) -> None:
    many = [slave(f"tcp://a-host-with-a-long-name:{5000 + n}/0", 10**6 + n) for n in range(200)]
    many[150] |= {"state": "stopped", "waited_seconds": 9.0}
    long = "n" * 64
    big = progress("stepping", 10**6, 10**7, steps_per_second=12345.6, artifacts=10**8)
    shown = [seen(f"sim-{n}") for n in range(30)]
    shown.append(seen(long, progress=big, loads=loads(*many), problem="it is " * 99))
    lines = drawn(shown, long, width=width, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if height >= 8:
        assert any(line.startswith("> nnn") for line in lines)
    if height >= 16 and width >= 40:
        assert any("stopped" in line for line in lines)  # of 200
        assert any(line.startswith("and 1") for line in lines)


def test_the_daemon_is_empty_or_its_host_does_not_answer() -> None:
    assert "create makes one" in drawn([], None)[2]
    lines = drawn([seen(progress=None, loads=None, metrics={}, problem="it does not answer")])
    assert "it does not answer" in lines
    assert not any(line.startswith("PROCESS") for line in lines)


def test_the_metric_that_is_asked_for() -> None:
    metrics = {"novelty": [1.0], "value": [1.0, 2.0]}
    assert "value ▁█ 2" in drawn([seen(metrics=metrics)], metric="value")
    text = "\n".join(drawn([seen(metrics=metrics)], metric="valeu"))
    assert "valeu: not a metric of novelty; there are novelty, value" in text


def test_what_is_said_takes_the_place_of_the_help() -> None:
    assert drawn([seen()], said="novelty is paused")[-1] == "novelty is paused"


def test_sparklines() -> None:
    assert sparkline([0, 1, 2, 3], 40, True) == "▁▃▆█"
    assert sparkline([0, 1, 2, 3], 2, False) == "_#"
    assert sparkline([5, 5], 40, False) == "=="
    assert sparkline([float("nan"), 1.0, float("inf"), 2.0], 40, True) == "▁█"
    assert sparkline([], 40, True) == sparkline([float("nan")], 40, True) == ""


# ---- what is looked at


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    monkeypatch.setattr("creamas_sc.client.connect_sync", lambda daemon, timeout: made)
    monkeypatch.setattr("supervisor.cli.app.build", build_once)
    monkeypatch.setattr(made, "status", lambda: {"log": str(tmp_path / "logs" / "default.log")})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    made.daemon, made.pid = "default", 6  # type: ignore[attr-defined]
    made.sim.answers["process_loads"] = [loads(slave())]
    return made


@contextmanager
def watching(client: Any) -> Iterator[Watches]:
    found = Watches(client)
    try:
        yield found
    finally:
        found.close()


def test_cpu_is_the_share_since_the_look_before(client: FakeClient) -> None:
    client.sim.answers["process_loads"] = [
        loads(slave(pid=8, cpu_seconds=1.0), slave(pid=9, cpu_seconds=None), time=10.0),
        loads(slave(pid=8, cpu_seconds=2.5), slave(pid=10, cpu_seconds=7.0), time=12.0),
    ]
    with watching(client) as found:
        (first,), (second,) = found.look(NAME, False), found.look(NAME, False)
    assert first.loads is not None
    assert second.loads is not None
    assert [each["cpu"] for each in first.loads["slaves"]] == [None, None]
    assert [each["cpu"] for each in second.loads["slaves"]] == [0.75, None]
    assert second.loads["host"]["cpu"] == 0.0
    assert client.sim.called("detach")


def test_steps_a_second_where_there_is_no_record(client: FakeClient) -> None:
    client.summaries = [summary(host=progress("stepping", 1, steps_per_second=3.5))]
    with watching(client) as found:
        found.look(NAME, False)
        (one,) = found.look(NAME, False)
    assert one.metrics == {STEP_RATE: [3.5, 3.5]}
    assert one.progress is not None
    assert one.progress["clients"] == 0  # without this command


def test_a_host_that_does_not_answer_or_is_lost_is_a_problem(client: FakeClient) -> None:
    with watching(client) as found:
        client.sim.answers["process_loads"] = [HostLost("the host\nis gone"), loads(slave())]
        assert found.look(NAME, False)[0].problem == "the host is gone"
        assert client.sim.called("detach")
        assert found.look(NAME, False)[0].problem == ""  # it is attached to again
        client.summaries = [summary(host=None)]
        assert "(pid 7) does not answer" in found.look(NAME, False)[0].problem


def test_others_are_neither_attached_to_nor_read(client: FakeClient) -> None:
    client.summaries = [summary(), summary(name="other")]
    with watching(client) as found:
        first, second = found.look("other", False)
    assert (first.loads, first.metrics) == (None, {})
    assert first.progress is not None
    assert "no simulation 'other'" in second.problem  # of this fake


def test_the_log_is_read_on(client: FakeClient, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "default" / f"{NAME}.log"
    log.parent.mkdir(parents=True, mode=0o700)
    log.write_text('{"event": "one"}\n')
    with watching(client) as found:
        (first,) = found.look(NAME, False)
        with log.open("a") as file:
            file.write("two\nthree\n")
        (second,) = found.look(NAME, False)
    assert (first.log, first.new) == ([{"event": "one"}], 1)
    assert second.log == [{"event": "one"}, {"printed": "two"}, {"printed": "three"}]
    assert second.new == 2


# ---- the command


def test_where_there_is_no_terminal_it_says_what_to_use(
    client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top"]) == 2
    assert "use creamas-supervisor ls, attach NAME, or top --json" in capsys.readouterr().err
    for seconds in ("0", "nan", "inf"):
        assert main(["top", "--json", "--every", seconds]) == 2
        assert "--every must be" in capsys.readouterr().err


def test_the_stream_has_an_object_a_line_until_the_simulation_ends(
    client: FakeClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[summary(), summary(name="other")]] * 2 + [[]]
    monkeypatch.setattr(client, "ls", lambda: answers.pop(0))
    assert main(["top", NAME, "--json", "--every", "0.1"]) == 0
    printed = capsys.readouterr()
    first, second = map(json.loads, printed.out.splitlines())
    assert first["name"] == second["name"] == NAME
    assert first["progress"]["step"] == 0
    assert first["processes"]["slaves"][0]["memory_bytes"] == 50 << 20
    assert first["metrics"] == {STEP_RATE: 0.0}
    assert f"{NAME} has ended" in printed.err


def test_a_name_that_there_is_not(client: FakeClient) -> None:
    assert main(["top", "nobody", "--json"]) == 1


@pytest.fixture
def typed(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command while someone types; what was drawn last."""

    def run(*typed: str) -> str:
        screen = io.StringIO()
        left = [*typed, "q"]

        @contextmanager
        def keys() -> Iterator[Callable[[float], str]]:
            yield lambda seconds: left.pop(0)

        def console(**kwargs: Any) -> Console:
            return Console(file=screen, width=80, height=24, force_terminal=True, **kwargs)

        monkeypatch.setattr(top, "_keys", keys)
        monkeypatch.setattr("rich.console.Console", console)
        monkeypatch.setattr("supervisor.cli.output.is_terminal", lambda stream: True)
        assert main(["top"]) == 0
        return screen.getvalue().rpartition("the daemon")[2]

    return run


def test_keys(client: FakeClient, typed: Callable[..., str]) -> None:
    assert HELP in typed()
    assert "novelty is paused" in typed("p")
    assert client.sim.called("pause") == [((0,), {})]
    late = DeadlineExceeded("late", acknowledged=True)
    client.sim.answers["pause"] = [late]
    assert "novelty pauses after this step" in typed("p")
    assert "novelty goes on" in typed("r")
    client.sim.answers["resume"] = [CreamasError("there are no steps")]
    assert "there are no steps" in typed("r")
    assert "Tab marks the next" in typed("?")
    assert HELP in typed("p", "", "\t")


def test_tab_marks_the_next_simulation_and_one_that_steps_is_first(
    client: FakeClient, typed: Callable[..., str]
) -> None:
    names = ["a", "b", "c"]
    client.summaries = [summary(name=name) for name in names]
    client.summaries[1]["host"] = progress("stepping")
    for keys, marked in [("", "b"), ("\t", "c"), ("\t\t", "a"), ("k", "a"), ("kk", "c")]:
        assert f"> {marked}" in typed(*keys)
