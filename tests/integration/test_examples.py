"""The examples as a user runs them: what they print and leave, and Ctrl-C in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
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
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    script = tmp_path / "script.py"
    script.write_text(found[1])
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


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=BOUND_SECONDS
    )
