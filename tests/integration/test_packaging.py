"""The built wheel in empty environments outside the clone, installed by the README's line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.programs import ROOT, run
from tests.support.pythons import find_uv

EXAMPLE = ROOT / "examples" / "quickstart.py"

pytestmark = pytest.mark.slow

Environment = Callable[..., Path]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user's own, with a script."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(EXAMPLE, folder)
    return folder


@pytest.fixture(scope="module")
def environment(outside: Path) -> Environment:
    """Makes a virtual environment of a name, with pip and nothing else; its Python."""

    def make(name: str, *options: str) -> Path:
        _run(_uv(), "venv", *options, "--python", sys.executable, outside / name, cwd=outside)
        return outside / name / "bin" / "python"

    return make


@pytest.fixture(scope="module")
def wheel(outside: Path, environment: Environment) -> Path:
    """The wheel that is built from the clone."""
    _require_index(environment("probe", "--seed"), outside)
    _run(_uv(), "build", "--wheel", "--out-dir", outside / "dist", ROOT, cwd=outside)
    (built,) = (outside / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(outside: Path, environment: Environment, wheel: Path) -> Path:
    """The Python of an environment after the README's line, the wheel for the clone."""
    python = environment("venv", "--seed")
    command = shlex.split(_install_line().replace("/path/to/clone", str(wheel)))
    _run(python.with_name(command[0]), *command[1:], cwd=outside)
    return python


def test_pip_finds_no_broken_requirement(installed: Path, outside: Path) -> None:
    assert "No broken requirements" in _run(installed, "-m", "pip", "check", cwd=outside)


def test_tractor_is_carried_whole_and_installs_nothing_else(installed: Path, outside: Path) -> None:
    names = _run(installed, "-m", "pip", "list", "--format", "freeze", cwd=outside).lower()
    unneeded = ("tractor", "async", "colorlog", "pdbpp", "trio-typing", "trio_typing", "wrapt")
    assert [name for name in unneeded if name in names] == []
    (carried,) = installed.parents[1].glob("lib/*/site-packages/creamas_sc_carried")
    assert [path.name for path in carried.iterdir()] == ["tractor"]
    assert "AFFERO" in (carried / "tractor" / "LICENSE").read_text(encoding="utf-8")
    assert len(list(carried.rglob("*.py"))) == 27


def test_both_packages_come_from_the_wheel(installed: Path, outside: Path) -> None:
    code = """
import importlib.metadata, importlib.util, pathlib, creamas_sc, creamas_sc.mp, supervisor
for package in (creamas_sc, supervisor):
    folder = pathlib.Path(package.__file__).parent
    print(folder.parent.name, (folder / "py.typed").exists())
print(importlib.metadata.version("creamas-sc"), importlib.util.find_spec("tests"))
"""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert _run(installed, "-c", code, cwd=outside).splitlines() == [
        "site-packages True",
        "site-packages True",
        f"{version[1]} None",
    ]


def test_the_quickstart_runs(installed: Path, outside: Path) -> None:
    assert "of 30 numbers were published" in _run(installed, "quickstart.py", cwd=outside)


@pytest.mark.long
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_what_a_client_alone_prints_completes_it(
    installer: str, wheel: Path, outside: Path, environment: Environment
) -> None:
    python = environment(f"client-{installer}", *["--seed"] * (installer == "pip"))
    _run(_uv(), "pip", "install", "--python", python, wheel, cwd=outside)
    script = _fail(python, "quickstart.py", cwd=outside)
    command_line = _fail(python.with_name("creamas-supervisor"), "start", cwd=outside)
    said = r"which this Python lacks: (.+)$"
    from_script, from_command = (re.search(said, text) for text in (script, command_line))
    assert from_script is not None
    assert from_command is not None
    assert from_script[1] == from_command[1]
    assert ("uv pip" in from_script[1]) == (installer == "uv")
    _run("sh", "-c", from_script[1], cwd=outside)
    assert "of 30 numbers were published" in _run(python, "quickstart.py", cwd=outside)


def _install_line() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^pip install .*\[supervisor\].*$", readme, re.MULTILINE)
    return str(line)


def _uv() -> str:
    uv = find_uv()
    assert uv, "no uv: run the tests by the README's command"
    return uv


def _require_index(python: Path, folder: Path) -> None:
    pip = [str(python), "-m", "pip", "download", "--no-deps", "sniffio"]
    done = _finish(tuple(pip), folder)
    if done.returncode != 0 and "CI" not in os.environ:
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")


def _environ() -> dict[str, str]:
    """The environment without what leads back to the clone and its virtual environment."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_INTERNAL__")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ["PATH"] = os.pathsep.join([str(Path(_uv()).parent), environ["PATH"]])
    return environ


def _finish(command: tuple[str | Path, ...], cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(*command, folder=cwd, env=_environ(), seconds=120)


def _run(*command: str | Path, cwd: Path) -> str:
    done = _finish(command, cwd)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def _fail(*command: str | Path, cwd: Path) -> str:
    """The last line of what a command that exits with 1 says."""
    done = _finish(command, cwd)
    assert done.returncode == 1, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stderr.strip().splitlines()[-1]
