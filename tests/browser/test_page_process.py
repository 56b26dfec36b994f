"""The page of a simulation in a daemon, in a real browser, with its process killed meanwhile."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.main import main
from tests.browser.window import Window
from tests.support.programs import ROOT, Program

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A daemon with painters that step and are recorded."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    monkeypatch.setenv("CREAMAS_DAEMON", "browser")
    painters = f"{ROOT / 'examples' / 'painters.py'}:Painter=10"
    record = str(tmp_path / "record")
    assert main(["start"]) == 0
    try:
        words = ["--slaves", "2", "--agents", painters, "--record", record]
        assert main(["create", "colours", *words]) == 0
        assert main(["step", "colours", "--forever"]) == 0
        yield
    finally:
        main(["stop", "--timeout", "0.1"])


def page(port: int) -> Program:
    """A page in another process."""
    command = [sys.executable, "-m", "supervisor.cli", "page", "colours", "--port", str(port)]
    return Program(command, Path.cwd())


def free_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]  # type: ignore[no-any-return]


def test_a_page_whose_process_is_killed(window: Window) -> None:
    """It follows a simulation, steers it, and goes on with the page's next process."""
    port = free_port()
    with page(port) as first:
        window.open(first.read_until("http://"))
        step = window.get("page.view.state.step")
        window.wait(f"page.view.state.step > {step}")
        window.run("document.querySelector('.tile button').click()")
        window.wait("document.querySelectorAll('#artifact tbody tr').length", 1)
        assert "colours" in window.text("#artifact tbody tr")  # its framing
        window.run("document.getElementById('artifact').close()")
        window.click("#pause")
        window.wait_text("#state", "paused")
        window.click("#resume")
        window.wait_text("#state", "stepping")
        first.signal(signal.SIGKILL)
        window.wait_text("#connection", "Connection lost, trying again.")
        step = window.get("page.view.state.step")
    with page(port):
        window.wait(f"page.view.state.step > {step}")
        window.wait("document.getElementById('connection').textContent === ''")
        window.click("#pause")
        window.wait_text("#state", "paused")
