"""A script that is about to have slaves has their processes come up while its imports go on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.integration.scripts import run, running
from tests.support import trees

CHILDREN = """
def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()

"""
HEAD = "import os, sys\nfrom creamas_sc import MultiEnvironment, Environment, run\n" + CHILDREN
USE = """
from creamas_sc.mp import EnvManager

class Telling(Environment):
    def __init__(self, addr):
        super().__init__(addr)
        umask = os.umask(0)
        os.umask(umask)
        os.write(1, f"slave {umask:o} {os.environ.get('TOLD')}\\n".encode())

def use():
    with MultiEnvironment(("localhost", 0), Environment) as menv:
        run(menv.spawn_slaves([("localhost", 0)], Telling, EnvManager))
        return children()

"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Where a test writes its script."""
    return tmp_path / "script.py"


def test_the_first_supervisor_takes_it_over(script: Path) -> None:
    script.write_text(HEAD + "early = children()\n" + USE + "print(early == use(), len(early))")
    told = run(script)
    assert (told.returncode, told.stderr) == (0, "")
    assert sorted(told.stdout.splitlines())[0] == "True 1"


@pytest.mark.parametrize(
    ("head", "frozen"),
    [
        (HEAD, "True"),
        (f"from typing import Union\nimport numpy as np\nN = 3\n{HEAD}", "True"),
        (f"mine = [[]]\n{HEAD}", "False"),
        (f"class Mine: pass\nmine = Mine()\n{HEAD}", "False"),
        (f"def late():\n    from creamas_sc import MultiEnvironment\n{CHILDREN}late()\n", "False"),
        ("import trio, creamas_sc.client\n", "False"),
    ],
)
def test_what_it_imports_is_no_matter_of_garbage(head: str, frozen: str, script: Path) -> None:
    script.write_text(f"{head}import gc\nprint(gc.get_freeze_count() > 10_000, gc.isenabled())")
    assert run(script).stdout == f"{frozen} True\n"


WAIT = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(*children(), flush=True)
signal.sigwait({signal.SIGUSR1})
"""


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("sys.exit(3)", 3), ("os._exit(0)", 0), ("os.kill(0, 9)", -9)]
)
def test_without_use_it_ends_with_the_script(end: str, code: int, script: Path) -> None:
    script.write_text(f"import signal\n{HEAD}{WAIT}{end}")
    with running(script) as under_way:
        (keeper,) = map(int, under_way.read_until("").split())
        left = trees.open_pidfds([keeper])
        under_way.signal(signal.SIGUSR1)
        assert under_way.finish() == (code, "", "")
        assert trees.wait_gone(left, 2) == []


def test_a_fork_leaves_it_to_the_script(script: Path) -> None:
    fork = "early = children()\npid = os.fork()\nif pid == 0:\n    sys.exit()\nos.waitpid(pid, 0)\n"
    script.write_text(HEAD + fork + USE + "print(early == use(), len(early))")
    told = run(script)
    assert (told.returncode, told.stderr) == (0, "")
    assert sorted(told.stdout.splitlines())[0] == "True 1"


def test_what_changed_since_the_import_is_inherited(script: Path) -> None:
    change = "os.umask(0o77)\nos.environ['TOLD'] = 'late'\nearly = children()\n"
    script.write_text(HEAD + change + USE + "print(early == use(), len(early))")
    told = run(script)
    assert (told.returncode, told.stderr) == (0, "")
    assert sorted(told.stdout.splitlines()) == ["False 1", "slave 77 late"]


@pytest.mark.parametrize(
    ("variable", "taken_over"),
    [("OMP_NUM_THREADS", True), ("PYTHONPATH", True), ("PYTHONUTF8", False), ("LC_ALL", False)],
)
def test_the_environment_comes_with_the_slaves(
    variable: str, taken_over: bool, script: Path
) -> None:
    """But for what a process reads before anything of theirs runs."""
    change = f"os.environ.update(TOLD='late', {variable}='1')\nearly = children()\n"
    script.write_text(HEAD + change + USE + "print(early == use(), len(early))")
    told = run(script)
    assert (told.returncode, told.stderr) == (0, "")
    same, slave = sorted(told.stdout.splitlines())
    assert (same, slave.endswith(" late")) == (f"{taken_over} 1", True)


@pytest.mark.parametrize(
    "code",
    [
        "import os, creamas_sc",
        "import os\nfrom creamas_sc import Environment",
        "import os, helper",
        "import os, sys\nsys.modules['creamas_sc_carried'] = None\n"
        "from creamas_sc import MultiEnvironment",
    ],
    ids=["package", "other-names", "in-a-module", "no-tractor"],
)
def test_it_is_for_scripts_that_name_what_has_slaves(code: str, script: Path) -> None:
    (script.parent / "helper.py").write_text("from creamas_sc import MultiEnvironment")
    script.write_text(f"{code}\n{CHILDREN}\nprint(children())")
    told = run(script)
    assert (told.returncode, told.stdout, told.stderr) == (0, "[]\n", "")
