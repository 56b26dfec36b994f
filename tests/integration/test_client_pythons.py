"""The client's tests under today's anyio and trio, on every supported Python that is found here.

The daemon runs on this test's own Python, under whose anyio the suite runs them too. Nothing but
packages is downloaded: a Python that is not there is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.scripts import find_uv

ROOT = Path(__file__).parents[2]
# What is chosen of the tests on each: the suite itself runs all, on the daemon's own Python and
# anyio, which the blocking client does not use. CREAMAS_TEST_ALL=1 runs all on each.
PYTHONS = {"3.11": "asyncio", "3.12": "trio", "3.13": "sync or asyncio", "3.14": "sync or trio"}
NEWEST = ["anyio>=4.11", "trio>=0.31"]
BUILD_SECONDS = 120
TEST_SECONDS = 120
SETTINGS = """
[pytest]
addopts = --strict-markers --import-mode=importlib -ra -p no:cacheprovider
pythonpath = {root}
filterwarnings = error
"""


def found_python(version: str) -> str | None:
    """An interpreter of that version: this one, on the PATH, or in the places of pyenv and uv."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    candidates += filter(None, [shutil.which(f"python{version}"), _found_by_uv(version)])
    return next((each for each in candidates if _is(each, version)), None)


def _found_by_uv(version: str) -> str | None:
    uv = find_uv()
    if uv is None:
        return None
    told = _run([uv, "python", "find", "--no-python-downloads", "--no-project", version])
    return told.stdout.strip() if told.returncode == 0 else None


def _is(python: str, version: str) -> bool:
    # A shim on the PATH may name a Python that is not there.
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return _run([python, "-I", "-c", code]).stdout.strip() == version


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )


def environment(folder: Path, python: str, packages: list[str]) -> Path:
    """A virtual environment with the client's dependencies, and pytest; its Python."""
    made = folder / "bin" / "python"
    wanted = [*packages, "msgpack", "pytest"]
    uv = find_uv()
    if uv is not None:
        steps = [
            [uv, "venv", "-q", "--no-project", "-p", python, str(folder)],
            [uv, "pip", "install", "-q", "-p", str(made), *wanted],
        ]
    else:
        steps = [[python, "-m", "venv", str(folder)], [str(made), "-m", "pip", "install", *wanted]]
    for step in steps:
        told = _run(step)
        assert told.returncode == 0, told.stderr
    return made


@pytest.mark.parametrize("version", PYTHONS)
def test_the_clients_tests(version: str, tmp_path: Path) -> None:
    python = found_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    made = environment(tmp_path / "venv", python, NEWEST)
    settings = tmp_path / "pytest.ini"
    settings.write_text(SETTINGS.format(root=ROOT))
    tests = ["tests/client", "tests/unit/test_blocking.py", "tests/unit/test_client_calls.py"]
    chosen = [] if os.environ.get("CREAMAS_TEST_ALL") else ["-k", PYTHONS[version]]
    told = subprocess.run(
        [made, "-m", "pytest", "-q", "-c", settings, f"--rootdir={ROOT}", *tests, *chosen],
        cwd=ROOT,
        env={**os.environ, "CREAMAS_TEST_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TEST_SECONDS,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert " passed" in told.stdout
