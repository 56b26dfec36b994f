"""A script works whatever its process was started with."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import programs

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


@pytest.mark.slow
def test_a_low_soft_limit_of_descriptors(script: Path) -> None:
    society = SOCIETY.replace('[("localhost", 0)]', "SLAVES")
    society = society.replace(
        "return sum(", "return resource.getrlimit(resource.RLIMIT_NOFILE) or ("
    )
    script.write_text(
        f"import resource\nSLAVES = [('localhost', 0)] * 16\n{society}"
        "limit = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "print(limit, results())\n"
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    command = f"ulimit -Sn 40; exec {shlex.join(programs.script_command(script))}"
    ended = subprocess.run(
        command,
        shell=True,
        env=programs.environ(),
        timeout=programs.BOUND_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    raised = min(hard, 4096) if hard != resource.RLIM_INFINITY else 4096
    assert ended.stdout.splitlines()[-1] == f"(40, {hard}) [({raised}, {hard})]"


def test_a_file_that_got_the_number_of_standard_output_is_not_printed_into(script: Path) -> None:
    script.write_text(
        f"{SOCIETY}if __name__ == '__main__':\n"
        "    os.close(1)\n"
        "    assert os.open('mine', os.O_CREAT | os.O_WRONLY) == 1\n"
        "    os.write(1, str(results()).encode())\n"
    )
    ended = programs.run_script(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (script.parent / "mine").read_text() == "[3]"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["supervisor.py", "supervisor/__init__.py"])
def test_a_module_beside_the_script_may_have_the_name_of_the_supervisors_package(
    name: str, script: Path
) -> None:
    module = script.parent / name
    module.parent.mkdir(exist_ok=True)
    module.write_text(SOCIETY.replace("sum(", "__name__ or sum("))
    script.write_text("from supervisor import results\nprint(results())")
    ended = programs.run_script(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "['supervisor']"


@pytest.mark.slow
def test_a_script_may_have_the_name_of_the_supervisors_package(script: Path) -> None:
    script = script.with_name("supervisor.py")
    script.write_text(f"{SOCIETY}print(results())")
    ended = programs.run_script(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "[3]"


@pytest.mark.slow
def test_a_module_on_pythonpath_may_have_the_name_of_the_supervisors_package(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = script.parent / "modules"
    folder.mkdir()
    (folder / "supervisor.py").write_text("")
    path = os.pathsep.join([str(folder), str(programs.ROOT)])
    monkeypatch.setattr(programs, "environ", lambda: {**os.environ, "PYTHONPATH": path})
    script.write_text(f"{SOCIETY}import supervisor\nprint(supervisor.__file__, results())")
    ended = programs.run_script(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == f"{folder}/supervisor.py [3]"


def test_a_script_that_ignores_the_end_of_its_children(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(script.parent / "run"))
    script.write_text(
        f"{SOCIETY}if __name__ == '__main__':\n"
        "    import signal\n"
        "    signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "    print(results())\n"
    )
    ended = programs.run_script(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "[3]"
    assert list(script.parent.glob("run/creamas/*.tree")) == []


@pytest.mark.slow
def test_a_process_of_multiprocessing_that_imports_the_script_again(script: Path) -> None:
    script.write_text(
        f"{SOCIETY}def show():\n"
        "    print(results())\n"
        "if __name__ == '__main__':\n"
        "    import multiprocessing, multiprocessing.resource_tracker as tracker\n"
        "    process = multiprocessing.get_context('spawn').Process(target=show)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    tracker._resource_tracker._stop()  # else nobody reaps it\n"
    )
    ended = programs.run_script(script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "[3]"


FLAGS = """
def flags():
    kept = {
        name: getattr(sys.flags, name)
        for name in ("optimize", "bytes_warning", "dont_write_bytecode", "dev_mode", "utf8_mode")
    }
    return kept, sys.warnoptions, sys._xoptions

"""


@pytest.mark.parametrize(
    "options",
    [
        "-O -B -b -W error::UserWarning",
        pytest.param("-OO -bb -X utf8=1 -X tracemalloc", marks=pytest.mark.long),
        pytest.param("-X dev", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_options_of_the_scripts_python_reach_its_slaves(options: str, script: Path) -> None:
    society = SOCIETY.replace("return sum(", "return flags() or sum(")
    script.write_text(f"{FLAGS}{society}print([flags()] == results(), flags())")
    python, *_ = programs.script_command(script)
    ended = subprocess.run(
        [python, *options.split(), str(script)],
        env=programs.environ(),
        capture_output=True,
        text=True,
        timeout=programs.BOUND_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1].startswith("True ")


@pytest.mark.slow
def test_an_interactive_python_after_the_script(script: Path) -> None:
    script.write_text(SOCIETY)
    ended = subprocess.run(
        [sys.executable, "-i", str(script)],
        input="print('got', results())\n",
        env=programs.environ(),
        timeout=programs.BOUND_SECONDS,
        capture_output=True,
        text=True,
    )
    assert "got [3]" in ended.stdout, ended.stderr
