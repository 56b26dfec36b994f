"""What an installation lacks, and the command that completes it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from creamas_sc.runtime import installation
from tests.support.programs import ROOT

EXTRA = "creamas-sc[supervisor]"


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the installer has noted of where creamas-sc came from."""
    noted: dict[str, Any] = {}
    installed = SimpleNamespace(read_text=lambda _: json.dumps(noted) if noted else None)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: installed)
    monkeypatch.setattr(installation, "find_spec", lambda _: object())
    return noted


def asked() -> list[str]:
    command = shlex.split(installation.how_to_install())
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    return command[4:]


@pytest.mark.parametrize(
    ("noted", "arguments"),
    [
        ({}, [EXTRA]),
        ({"url": "file:///a/b.whl", "archive_info": {}}, ["/a/b.whl[supervisor]"]),
        ({"url": "file:///my%20work/it%27s", "dir_info": {}}, ["/my work/it's[supervisor]"]),
        ({"url": "file:///a", "dir_info": {"editable": True}}, ["--editable", "/a[supervisor]"]),
        ({"url": "https://host/c.whl", "archive_info": {}}, [f"{EXTRA} @ https://host/c.whl"]),
        (
            {"url": "https://host/c.git", "vcs_info": {"vcs": "git", "commit_id": "1234"}},
            [f"{EXTRA} @ git+https://host/c.git@1234"],
        ),
    ],
    ids=["index", "wheel", "folder", "editable", "address", "repository"],
)
def test_it_names_where_the_package_came_from(
    noted: dict[str, Any], arguments: list[str], origin: dict[str, Any]
) -> None:
    origin.update(noted)
    assert asked() == arguments


def test_a_clone_that_was_never_installed_is_named(
    origin: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert asked() == [f"{Path(__file__).parents[2]}[supervisor]"]


def test_without_pip_it_is_uvs_command(
    origin: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda _: None)
    command = shlex.split(installation.how_to_install())
    assert command == ["uv", "pip", "install", "--python", sys.executable, EXTRA]
    monkeypatch.setattr(installation, "find_spec", lambda name: name == "uv" or None)
    command = shlex.split(installation.how_to_install())
    assert command[:3] == [sys.executable, "-m", "uv"]
    assert command[3:] == ["pip", "install", "--python", sys.executable, EXTRA]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert installation.missing_packages() == []
    monkeypatch.setitem(sys.modules, installation.CARRIED, None)
    monkeypatch.setitem(sys.modules, "tricycle", None)
    assert installation.missing_packages() == ["tricycle", "tractor"]
    monkeypatch.setattr(installation, "SUPERVISOR", tmp_path)
    assert installation.missing_packages() == ["tricycle", "tractor", "supervisor"]


def test_the_environment_of_a_clone_has_what_the_commands_of_its_readme_begin_with() -> None:
    """`python3` is that environment's own after `. .venv/bin/activate`."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run")]
    modules = set(re.findall(r"python3 -m (\w+)", " ".join(texts))) - sys.stdlib_module_names
    with (ROOT / "pyproject.toml").open("rb") as file:
        dev = tomllib.load(file)["dependency-groups"]["dev"]
    names = {re.split(r"\W", each)[0] for each in dev if isinstance(each, str)}
    assert {"pip", "uv"} <= modules <= names
