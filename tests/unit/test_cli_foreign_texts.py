"""No verb lets a text of others control the terminal, or pass for a line of its own."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from creamas_sc.errors import AgentError, AgentErrors, CreamasError, HostLost
from creamas_sc.reports import SlaveReceipt, StopReport
from supervisor.cli import output
from supervisor.cli.display import Live, picture
from supervisor.cli.main import main
from tests.support.cli_fakes import ADDRS, NAME, FakeClient, progress, summary

TEXT = "\x1b]0;title\x07 \x1b[2J \x9b2J \x7f \u202e\r\nINFO all is well\x85INFO again"
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]|^INFO", re.MULTILINE)
ENDED = StopReport([SlaveReceipt(TEXT, 8, 1, None, 0.5, True, "kill", (TEXT,))], None, (TEXT,))
VERBS = [
    ["status"],
    ["stop"],
    ["ls", "--all"],
    ["inspect", NAME],
    ["create", NAME],
    ["attach", NAME],
    ["step", NAME],
    ["step", NAME, "--wait"],
    ["pause", NAME],
    ["resume", NAME],
    ["wait", NAME],
    ["close", NAME],
    ["kill", NAME],
]

Run = Callable[..., tuple[str, str]]


class HostileClient(FakeClient):
    """Each of its answers has the text wherever there can be one."""

    def __init__(self) -> None:
        super().__init__()
        failed = progress("failed", 3, 9, error=TEXT)
        about = {"pid": TEXT, "cause": TEXT, "host": failed, "about": {TEXT: TEXT}, "path": [TEXT]}
        self.summaries = [summary(**about, name=TEXT, state=TEXT)]
        self.report = ENDED
        self.stopped = [{"name": TEXT, "report": ENDED}]
        for method in ("progress", "start_steps", "pause", "resume"):
            self.sim.answers[method] = [failed]
        events = [(1, "slave_lost", {"cause": TEXT}), (2, TEXT, {TEXT: TEXT})]
        self.sim.answers["next_events"] = [(0, []), (2, events), HostLost(TEXT)]

    def inspect(self, name: str, *, environ: bool = False) -> Any:
        return {**super().inspect(name, environ=environ), **self.summaries[0]}

    def status(self) -> dict[str, Any]:
        return {**super().status(), TEXT: TEXT, "log": TEXT}

    def create(self, name: str, **kwargs: Any) -> dict[str, Any]:
        return {**super().create(name, **kwargs), "pid": TEXT}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = HostileClient()
    monkeypatch.setattr("creamas_sc.client.connect_sync", lambda daemon, timeout: made)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path))
    return made


@pytest.fixture
def run(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[str, str]:
        main(list(words))
        printed = capsys.readouterr()
        return printed.out, printed.err

    return command


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_answers_are_escaped(run: Run, words: list[str]) -> None:
    out, err = run(*words)
    assert out + err
    assert not CONTROLS.search(out)
    assert not CONTROLS.search(err)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_json_is_exact_and_controls_no_terminal(run: Run, words: list[str]) -> None:
    out, err = run(*words, "--json")
    assert not CONTROLS.search(out)
    assert not CONTROLS.search(err)
    lines = out.splitlines() if words[0] == "attach" else [out]
    documents = [json.loads(line) for line in lines]
    if words[0] not in ("kill", "create"):
        assert any(json.dumps(TEXT) in json.dumps(document) for document in documents)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
@pytest.mark.parametrize("kind", ["one", "group"])
def test_errors_are_escaped(run: Run, client: FakeClient, words: list[str], kind: str) -> None:
    error = AgentError(address=TEXT, type_name=TEXT, message=TEXT, traceback_text=TEXT)
    client.error = CreamasError(TEXT) if kind == "one" else AgentErrors(TEXT, {ADDRS[0]: error})
    out, err = run(*words)
    assert out + err
    assert not CONTROLS.search(out)
    assert not CONTROLS.search(err)


@pytest.mark.parametrize("follow", [False, True])
def test_logs_are_escaped(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    monkeypatch.setattr(HostileClient, "status", FakeClient.status)
    monkeypatch.setattr("supervisor.cli.logs._watched", lambda pid: open("/dev/null", "rb"))
    path = tmp_path / "default" / f"{NAME}.log"
    path.parent.mkdir()
    keys = ("timestamp", "level", "event", "exception", "by")
    path.write_text(json.dumps(dict.fromkeys(keys, TEXT)) + "\n\x1b[2J printed \x9b\n")
    options = ["-f"] if follow else []
    out, err = run("logs", NAME, *options)
    assert r"    INFO all is well" in out
    assert not CONTROLS.search(out)
    out, err = run("logs", NAME, "--json", *options)
    assert not CONTROLS.search(out + err)
    entries = [json.loads(line) for line in out.splitlines()] if follow else json.loads(out)
    assert [*entries[0].values(), entries[1]["printed"]] == [TEXT] * 5 + ["\x1b[2J printed \x9b"]


def test_words_of_the_command_line_are_escaped(run: Run) -> None:
    for words in ([TEXT], ["ls", TEXT], ["step", NAME, TEXT], ["inspect", NAME, f"--{TEXT}"]):
        out, err = run(*words)
        assert not CONTROLS.search(out + err)


def test_the_picture_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=200)
    console.print(picture(NAME, progress("failed", 3, 9, error=TEXT), 80))
    live = Live(NAME)
    live._live.console = console
    live.event("slave_lost", {"cause": TEXT})
    assert not CONTROLS.search(file.getvalue())
    assert r"\x1b]0;title\x07" in file.getvalue()


def test_a_tab_stays_a_tab(capsys: pytest.CaptureFixture[str]) -> None:
    output.out("a\tb")
    assert capsys.readouterr().out == "a\tb\n"
