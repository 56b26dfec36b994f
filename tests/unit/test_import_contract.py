"""Imports point one way: the contract in pyproject.toml, and what an import may pull in."""

from __future__ import annotations

import re

import pytest

from tests.support.programs import ROOT, run_code


def test_the_layers_hold() -> None:
    # In another process: it reconfigures logging.
    lint = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    done = run_code(lint)
    assert done.returncode == 0, done.stdout


def test_tractor_is_imported_by_the_seam_only() -> None:
    statement = re.compile(
        r"^\s*(import|from) tractor\b|(import_module|find_spec)\(.tractor\b", re.M
    )
    importers = {
        path.relative_to(ROOT).as_posix()
        for package in ("creamas_sc", "supervisor")
        for path in (ROOT / package).rglob("*.py")
        if statement.search(path.read_text(encoding="utf-8"))
    }
    assert importers
    assert all(path.startswith("supervisor/actors/tractor_adapter/") for path in importers), (
        importers
    )


@pytest.mark.parametrize("module", ["creamas_sc", "creamas_sc.mp"])
def test_a_script_imports_neither_tractor_nor_numpy(module: str) -> None:
    heavy = {"tractor", "numpy", "networkx"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    assert run_code(code).stdout == "[]\n"
