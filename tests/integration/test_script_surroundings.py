"""A script works whatever its process was started with."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support import scripts

SOCIETY = """
import os, sys
from pathlib import Path
from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager

class Painter(CreativeAgent):
    @expose
    async def act(self):
        print("agents may print")
        return sum(1 for fd in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{fd}"))

def results():
    with MultiEnvironment(("localhost", 0), Environment) as menv:
        run(menv.spawn_slaves([("localhost", 0)], Environment, EnvManager))
        run(menv.spawn(Painter))
        return run(menv.trigger_all())

"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Where a test writes its script."""
    return tmp_path / "script.py"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors(closed: str, script: Path) -> None:
    script.write_text(f"{SOCIETY}Path('results').write_text(str(results()))")
    command = f"exec {shlex.join(scripts.command(script))} {closed}"
    ended = subprocess.run(
        command,
        shell=True,
        cwd=script.parent,
        env=scripts.environ(),
        timeout=scripts.BOUND_SECONDS,
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (script.parent / "results").read_text() == "[3]"


def test_a_file_that_got_the_number_of_standard_output_is_not_printed_into(script: Path) -> None:
    script.write_text(
        f"{SOCIETY}if __name__ == '__main__':\n"
        "    os.close(1)\n"
        "    assert os.open('mine', os.O_CREAT | os.O_WRONLY) == 1\n"
        "    os.write(1, str(results()).encode())\n"
    )
    ended = scripts.run(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (script.parent / "mine").read_text() == "[3]"
