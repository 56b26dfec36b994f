"""The examples as a user runs them: what they print and leave, and Ctrl-C in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SPIROGRAPHS = [sys.executable, "-m", "examples.spirographs"]
BOUND_SECONDS = 60


def test_the_quickstart_publishes_numbers() -> None:
    told = _run(sys.executable, str(ROOT / "examples" / "quickstart.py"))
    *published, last = told.stdout.splitlines()
    assert told.stderr == ""
    assert last == f"{len(published)} of 30 numbers were published"
    for line in published:
        form = r"tcp://localhost:555[67]/\d published \d+, which tcp://localhost:555[67]/\d likes"
        assert re.fullmatch(form, line)


def test_the_readmes_simulation_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_block("python", "class Painter"))
    told = _run(sys.executable, str(script))
    assert (told.stdout, told.stderr) == ("50 artifacts\n", "")


def test_spirographs_leave_a_table_and_two_pictures(tmp_path: Path) -> None:
    told = _run(*SPIROGRAPHS, "--agents=8", "--steps=12", "--seed=1", f"--out={tmp_path}")
    assert "step 12/12" in told.stderr
    invented = [line.split()[:2] for line in told.stdout.splitlines() if line.startswith("  ")]
    assert ["steps", "invented"] in invented
    assert ["all", "96"] in invented
    for name in ("spirographs.png", "novelty.png"):
        with Image.open(tmp_path / name) as image:
            image.verify()


@pytest.mark.slow
def test_a_seed_repeats_the_pictures(tmp_path: Path) -> None:
    options = ["--agents=6", "--steps=6", "--slaves=3", "--seed=7"]
    for run in ("one", "two"):
        _run(*SPIROGRAPHS, *options, f"--out={tmp_path / run}")
    for name in ("spirographs.png", "novelty.png"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two


def test_ctrl_c_ends_spirographs_at_once(tmp_path: Path) -> None:
    command = [*SPIROGRAPHS, "--steps=10000", f"--out={tmp_path / 'out'}"]
    script = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stderr is not None
    try:
        assert script.stderr.readline().startswith("step "), "it did not get to work"
        # To the whole group, as a terminal does.
        os.killpg(script.pid, signal.SIGINT)
        pressed = time.monotonic()
        stdout, stderr = script.communicate(timeout=BOUND_SECONDS)
        assert time.monotonic() - pressed < 3
    finally:
        script.kill()
        script.communicate()
    assert script.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted: nothing was written"
    assert "Traceback" not in stdout + stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--agents=0", "--slaves=two"])
def test_a_wrong_option_is_refused(option: str) -> None:
    told = subprocess.run(
        [*SPIROGRAPHS, option], cwd=ROOT, capture_output=True, text=True, timeout=BOUND_SECONDS
    )
    assert told.returncode == 2
    assert option.split("=")[0] in told.stderr
    assert "Traceback" not in told.stderr


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Room for a daemon of the test's own; it is stopped at the end, whatever happened."""
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("COLUMNS", "200")
    yield
    subprocess.run(["creamas-supervisor", "stop"], capture_output=True, check=False)


def test_the_readmes_tour_of_the_daemon(daemon: None, tmp_path: Path) -> None:
    start, create, step, attach, stop = _block("sh", "creamas-supervisor start").splitlines()
    for command in (start, create, step):
        _run("sh", "-c", command)
    with subprocess.Popen(
        ["sh", "-c", f"exec {attach}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as attached:
        assert attached.stdout is not None
        assert "100 agents" in attached.stdout.readline()
        attached.send_signal(signal.SIGINT)
        assert attached.wait(BOUND_SECONDS) == 130
    script = tmp_path / "visit.py"
    script.write_text(_block("python", "connect_sync"))
    told = _run(sys.executable, str(script))
    assert re.match(r"100 painters have published \d+ colours\n\[\(", told.stdout)
    assert _run("creamas-supervisor", "ls", "--json").stdout.count('"stepping"') == 1
    _run("sh", "-c", stop)


def test_one_script_leaves_a_simulation_for_others(daemon: None) -> None:
    _run("creamas-supervisor", "start")
    attach = (sys.executable, str(ROOT / "examples" / "attach.py"))
    assert _run(*attach, "create").stdout == "palette goes on stepping in the daemon\n"
    for form in ([], ["--async"]):
        told = _run(*attach, "visit", *form)
        assert re.match(r"24 painters have published \d+ colours\n", told.stdout)
    assert _run(*attach, "close").stdout.count("by request\n") == 2


def _block(language: str, having: str) -> str:
    """The README's block of code that has these words."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)
    (found,) = (block for block in blocks if having in block)
    return str(found)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=BOUND_SECONDS
    )
