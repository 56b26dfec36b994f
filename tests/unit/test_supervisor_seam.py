"""The seam knows the tractor it was written for, and says so where it meets another."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from supervisor.seam import runtime
from tests.supervisor_tree import ROOT


def test_the_installed_tractor_has_every_private_name() -> None:
    assert version("tractor") == runtime.WRITTEN_FOR
    runtime.check_names(runtime.PRIVATE_NAMES, runtime.PRIVATE_ATTRIBUTES)


@pytest.mark.parametrize("name", list(runtime.PRIVATE_NAMES))
def test_a_private_name_that_is_gone_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, _, attribute = name.replace(":", ".").rpartition(".")
    module = name.partition(":")[0]
    where = sys.modules[module] if owner == module else runtime._find(_with_colon(owner, module))
    monkeypatch.delattr(where, attribute)
    with pytest.raises(
        runtime.SeamError, match=rf"tractor .* has no {re.escape(name)}; .* needs tractor"
    ):
        runtime.check_names(runtime.PRIVATE_NAMES, {})


def _with_colon(owner: str, module: str) -> str:
    return f"{module}:{owner.removeprefix(module + '.')}"


def test_an_attribute_that_is_gone_is_named() -> None:
    with pytest.raises(runtime.SeamError, match=r"tractor\._actor:Actor\._no_such"):
        runtime.check_names([], {"tractor._actor:Actor": ["_peers", "_no_such"]})


def test_importing_the_supervisor_warns_of_nothing_and_brings_no_numpy() -> None:
    code = (
        "import sys, supervisor.main; "
        "assert not {'numpy', 'pdbpp'} & set(sys.modules), 'imported too much'"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")
