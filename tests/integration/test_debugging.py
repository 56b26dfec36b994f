"""Debuggers and coverage, where the code runs in slaves."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.programs import run, run_script

SCRIPT = """
from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.errors import AgentErrors
from creamas_sc.mp import EnvManager

class Painter(CreativeAgent):
    @expose
    async def act(self):
        colour = 7
        {line}
        return colour

with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    for _ in range(2):
        run(menv.spawn(Painter))
    try:
        print(run(menv.trigger_all()))
    except AgentErrors as errors:
        for error in errors.exceptions:
            print(error)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Where a test writes its script."""
    return tmp_path / "script.py"


def test_breakpoint_in_a_slave_says_what_to_do(script: Path) -> None:
    script.write_text(SCRIPT.format(line="breakpoint()"))
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall("breakpoint\\(\\) has no terminal in this process: ", done.stdout)) == 2
    assert "(Pdb)" not in done.stdout


def test_another_debugger_can_be_named(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script.with_name("debugger.py").write_text("def hold():\n    print('held')\n")
    script.write_text(SCRIPT.format(line="breakpoint()"))
    monkeypatch.setenv("PYTHONBREAKPOINT", "debugger.hold")
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["[7, 7]", "held", "held"]


@pytest.mark.slow
def test_coverage_counts_what_slaves_run(script: Path) -> None:
    """With the two lines of configuration that `creamas_sc.runtime.debugging` tells."""
    script.write_text(SCRIPT.format(line="colour += 1"))
    script.with_name(".coveragerc").write_text("[run]\nsource = .\npatch = subprocess, _exit\n")
    folder = script.parent
    done = run(sys.executable, "-m", "coverage", "run", script.name, folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[8, 8]\n", "")
    run(sys.executable, "-m", "coverage", "combine", folder=folder)
    report = run(sys.executable, "-m", "coverage", "report", "-m", folder=folder).stdout
    lines = SCRIPT.splitlines()
    missed = [lines.index(line) + 1 for line in lines[-3:]]
    assert report.splitlines()[2].split()[-1].startswith(f"{missed[0]}-"), report
