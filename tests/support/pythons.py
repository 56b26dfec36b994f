"""The supported Pythons of this machine; ``python -m tests.support.pythons`` prints them.

One a line, the oldest first. Nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.support.programs import run

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
BOUND_SECONDS = 20


def own_version() -> str:
    """The version of the running Python, as in `VERSIONS`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def find_uv() -> str | None:
    """Where uv is: `uv run` passes on its own path, which is not always on PATH."""
    return os.environ.get("UV") or shutil.which("uv")


def find_python(version: str) -> str | None:
    """An interpreter of ``version``: this one, on the PATH, or in the places of pyenv and uv."""
    if version == own_version():
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    candidates += filter(None, [shutil.which(f"python{version}"), _found_by_uv(version)])
    return next((each for each in candidates if _is(each, version)), None)


def _found_by_uv(version: str) -> str | None:
    uv = find_uv()
    if uv is None:
        return None
    return _output([uv, "python", "find", "--no-python-downloads", "--no-project", version]) or None


def _is(python: str, version: str) -> bool:
    # A shim on the PATH may name a Python that is not there.
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return _output([python, "-I", "-c", code]) == version


def _output(command: list[str]) -> str:
    done = run(*command, env=dict(os.environ), seconds=BOUND_SECONDS)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    print(*filter(None, map(find_python, VERSIONS)), sep="\n")
