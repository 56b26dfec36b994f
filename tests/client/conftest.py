"""A real daemon for the client's tests: a process of ``$CREAMAS_TEST_PYTHON``.

These tests also run where only a client is installed: so they import neither trio nor the
supervisor, and may have the daemon, its hosts and slaves on another Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clients import Named

ROOT = Path(__file__).parents[2]
END_SECONDS = 20.0
DAEMON = """
import sys
from pathlib import Path
from supervisor.daemon.process import Settings, run
name, log_folder = sys.argv[1:]
sys.exit(run(Settings(name, Path(log_folder)), lambda path: print(path, flush=True)))
"""


@contextmanager
def running_daemon(name: str, log_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A daemon in the foreground; ended by SIGTERM at the block's end."""
    process = subprocess.Popen(
        [os.environ.get("CREAMAS_TEST_PYTHON", sys.executable), "-c", DAEMON, name, log_folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().endswith(f"{name}.sock\n")
            yield process
        finally:
            process.terminate()
            process.wait(END_SECONDS)


@pytest.fixture(scope="package")
def daemon(
    _surroundings: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    """The daemon "default" of all tests here; simulations have names of their own."""
    # Where the simulations' processes find the agents of these tests.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    with running_daemon("default", tmp_path_factory.mktemp("log")) as process:
        yield process
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def named(daemon: subprocess.Popen[str], request: pytest.FixtureRequest) -> Iterator[Named]:
    """Names for the test's simulations; those left at its end are closed."""
    names = Named()
    yield names
    names.clear()
