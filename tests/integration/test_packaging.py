"""The built wheel in an empty environment outside the clone, installed by the README's lines."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.scripts import find_uv

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "quickstart.py"


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user's own, with an environment that has pip and nothing else."""
    if sys.version_info >= (3, 13):
        pytest.skip("the README's lines are for Python 3.11 and 3.12: tractor needs one of them")
    folder = tmp_path_factory.mktemp("outside")
    _run(_uv(), "venv", "--seed", "--python", sys.executable, folder / "venv", cwd=folder)
    _require_index(folder)
    return folder


@pytest.fixture(scope="module")
def installed(outside: Path) -> Path:
    """The Python of that environment after the README's lines, the wheel for the name."""
    _run(_uv(), "build", "--wheel", "--out-dir", outside / "dist", ROOT, cwd=outside)
    (wheel,) = (outside / "dist").glob("*.whl")
    for line in _install_lines():
        command = shlex.split(line.replace("/path/to/clone", str(wheel)))
        _run(outside / "venv" / "bin" / command[0], *command[1:], cwd=outside)
    return outside / "venv" / "bin" / "python"


def test_pip_finds_nothing_to_mend(installed: Path, outside: Path) -> None:
    assert "No broken requirements" in _run(installed, "-m", "pip", "check", cwd=outside)


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
    shutil.copy(EXAMPLE, outside)
    assert "of 30 numbers were published" in _run(installed, "quickstart.py", cwd=outside)


def _install_lines() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:python -m uv )?pip install .*$", readme, re.MULTILINE)
    assert len(lines) == 2, lines
    return lines


def _uv() -> str:
    uv = find_uv()
    assert uv, "no uv: run the tests by the README's command"
    return uv


def _require_index(folder: Path) -> None:
    pip = [str(folder / "venv" / "bin" / "pip"), "download", "--no-deps", "sniffio"]
    told = subprocess.run(pip, cwd=folder, env=_environ(), capture_output=True, text=True)
    if told.returncode != 0 and "CI" not in os.environ:
        pytest.skip(f"no package index can be reached: {told.stderr.strip().splitlines()[-1]}")


def _environ() -> dict[str, str]:
    """The environment without what leads back to the clone and its virtual environment."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_INTERNAL__")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _run(*command: str | Path, cwd: Path) -> str:
    told = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, f"{command}: {told.stdout}\n{told.stderr}"
    return told.stdout
