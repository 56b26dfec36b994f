"""A real daemon for the client's tests.

These tests also run where only a client is installed: so they import neither trio nor the
supervisor.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import daemons
from tests.support.clients import Named
from tests.support.programs import ROOT


@pytest.fixture(scope="package")
def daemon(
    _surroundings: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[daemons.Daemon]:
    """The daemon "default" of all tests here; each simulation has its own name."""
    with pytest.MonkeyPatch.context() as patch:
        # Where the simulations' processes find the agents of these tests.
        patch.setenv("PYTHONPATH", str(ROOT))
        with daemons.running(tmp_path_factory.mktemp("log"), "default") as running:
            yield running


@pytest.fixture
def named(daemon: daemons.Daemon) -> Iterator[Named]:
    """Names for the test's simulations; those left at its end are closed."""
    names = Named()
    yield names
    names.clear()
