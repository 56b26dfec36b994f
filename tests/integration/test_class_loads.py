"""When slaves load the classes of agents, and from where."""

from __future__ import annotations

import sys
import zipapp
from pathlib import Path

import pytest

from tests.support.programs import run, run_script

# A module that counts its loads. In slaves its load ends when both load it: a load at a time would
# wait for the other in vain.
TOP = """
import os, time
from pathlib import Path

folder = Path(__file__).parent
(folder / f"{os.getpid()}.load").touch()
end = time.monotonic() + 10
while len(list(folder.glob("*.load"))) < 3 and "MASTER" not in globals():
    assert time.monotonic() < end, "it was loaded by one process at a time"
    time.sleep(0.01)

from creamas_sc import CreativeAgent, expose

class Painter(CreativeAgent):
    @expose
    async def act(self):
        return os.getpid()
"""
USE = """
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager

with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    loads = len(list(Path(__file__).parent.glob("*.load")))
    for _ in range(2):
        run(menv.spawn(Painter))
    print(loads, len(set(run(menv.trigger_all()))))
"""


def test_slaves_load_the_script_side_by_side(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('if __name__ == "__main__":\n    MASTER = True\n' + TOP + USE)
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 2\n", "")


def test_slaves_load_the_modules_of_agents_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "painters.py").write_text(
        "import __main__\nif hasattr(__main__, 'MASTER'):\n    MASTER = True\n" + TOP
    )
    script = tmp_path / "script.py"
    script.write_text(
        "MASTER = True\nfrom pathlib import Path\nfrom painters import Painter\n" + USE
    )
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 2\n", "")


def test_what_does_not_load_is_left_to_the_spawn_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "painters.py").write_text(
        "import __main__\n__main__.MASTER\nfrom creamas_sc import CreativeAgent\n"
        "class Painter(CreativeAgent):\n    pass\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "MASTER = True\nfrom pathlib import Path\nfrom painters import Painter\n" + USE
    )
    done = run_script(script)
    assert (done.returncode, done.stdout) == (1, "")
    assert "LoadError: module 'painters' of 'painters:Painter' does not import" in done.stderr


SOCIETY = """
from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager

class Painter(CreativeAgent):
    @expose
    async def act(self):
        return 7

def results(*classes):
    with MultiEnvironment(("localhost", 0), Environment) as menv:
        run(menv.spawn_slaves([("localhost", 0)], Environment, EnvManager))
        for cls in classes:
            run(menv.spawn(cls))
        return run(menv.trigger_all())

"""


def test_a_zip_application(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "painters.py").write_text(SOCIETY)
    own = "from painters import Painter, results\nclass Own(Painter):\n    pass\n"
    (folder / "__main__.py").write_text(f"{own}print(results(Painter, Own))")
    zipapp.create_archive(folder, tmp_path / "app.pyz")
    done = run_script(tmp_path / "app.pyz")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[7, 7]\n", "")


@pytest.mark.slow
def test_a_test_that_pytest_has_imported_without_a_path(tmp_path: Path) -> None:
    file = tmp_path / "tests" / "part" / "test_society.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"{SOCIETY}def test():\n    assert results(Painter) == [7]\n")
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={tmp_path}"]
    done = run(sys.executable, "-P", "-m", "pytest", *options, file, seconds=90)
    assert done.returncode == 0, done.stdout
