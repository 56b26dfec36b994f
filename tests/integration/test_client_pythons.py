"""The client's tests on another Python than the daemon's, with what a client alone installs.

That is neither trio nor tractor. Nothing but packages is downloaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pythons import VERSIONS, find_python, find_uv, own_version

ROOT = Path(__file__).parents[2]
# Those of the blocking client; CI runs all of them on other Pythons.
TESTS = ["tests/client", "-k", "not asyncio"]
BOUND_SECONDS = 120
SETTINGS = """
[pytest]
addopts = --strict-markers --import-mode=importlib -ra -p no:cacheprovider
pythonpath = {root}
filterwarnings = error
"""


@pytest.mark.slow
def test_the_client_on_another_python(tmp_path: Path) -> None:
    others = (find_python(version) for version in reversed(VERSIONS) if version != own_version())
    python = next(filter(None, others), None)
    if python is None:
        pytest.skip("there is no other Python here")
    made = _environment(tmp_path / "venv", python)
    settings = tmp_path / "pytest.ini"
    settings.write_text(SETTINGS.format(root=ROOT))
    told = _run(
        [made, "-m", "pytest", "-q", "-c", settings, f"--rootdir={ROOT}", *TESTS],
        {"CREAMAS_TEST_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert " passed" in told
    assert "trio is not installed" in told


def _environment(folder: Path, python: str) -> Path:
    """A virtual environment with the client's dependencies, and pytest; its Python."""
    uv = find_uv()
    assert uv, "no uv: run the tests by the README's command"
    made = folder / "bin" / "python"
    _run([uv, "venv", "-q", "--no-project", "-p", python, folder])
    _run([uv, "pip", "install", "-q", "-p", made, "anyio", "msgpack", "pytest"])
    return made


def _run(command: list[str | Path], environ: dict[str, str] | None = None) -> str:
    told = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout
