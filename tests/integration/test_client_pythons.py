"""The client's tests on another Python than the daemon's, with what a client alone installs.

That is neither trio nor tractor. Nothing but packages is downloaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, run
from tests.support.pythons import VERSIONS, find_python, find_uv, own_version

# Those of the blocking client; CI runs all of them on other Pythons.
TESTS = ["tests/client", "-k", "not asyncio"]
BOUND_SECONDS = 120
SETTINGS = """
[pytest]
addopts = --strict-markers --import-mode=importlib -ra -p no:cacheprovider
pythonpath = {root}
filterwarnings = error
markers =
    slow
    long
"""


@pytest.mark.long
def test_the_client_on_another_python(tmp_path: Path) -> None:
    others = (find_python(version) for version in reversed(VERSIONS) if version != own_version())
    python = next(filter(None, others), None)
    if python is None:
        pytest.skip("there is no other Python here")
    made = _environment(tmp_path / "venv", python)
    settings = tmp_path / "pytest.ini"
    settings.write_text(SETTINGS.format(root=ROOT))
    printed = _run(
        [made, "-m", "pytest", "-q", "-c", settings, f"--rootdir={ROOT}", *TESTS],
        {"CREAMAS_TEST_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert " passed" in printed
    assert "trio is not installed" in printed


def _environment(folder: Path, python: str) -> Path:
    """A virtual environment with the client's dependencies, and pytest; its Python."""
    uv = find_uv()
    assert uv, "no uv: run the tests by the README's command"
    made = folder / "bin" / "python"
    _run([uv, "venv", "-q", "--no-project", "-p", python, folder])
    _run([uv, "pip", "install", "-q", "-p", made, "anyio", "msgpack", "pytest"])
    return made


def _run(command: list[str | Path], environ: dict[str, str] | None = None) -> str:
    env = {**os.environ, **(environ or {})}
    done = run(*command, env=env, seconds=BOUND_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
