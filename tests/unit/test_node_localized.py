"""Orders of another machine, as a node carries them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from creamas_sc.errors import StartError
from creamas_sc.supervisor_client.messages import ActorOrder, os_bytes
from supervisor.nodes.localized import localized


def _order(cwd: Path, path: list[Path], **environ: str) -> ActorOrder:
    return {
        "slot": "slave-0",
        "name": "slave-0",
        "node": "lab",
        "entry": "pkg.mod:main",
        "spec": b"",
        "environ": environ,
        "cwd": os_bytes(str(cwd)),
        "path": [os_bytes(str(each)) for each in path],
    }


def test_the_creators_settings_are_kept_and_this_machines_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/here")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    order = _order(tmp_path, [], HOME="/home/there", CUDA_VISIBLE_DEVICES="3", MODEL="large")

    environ = localized(order)["environ"]

    assert (environ["HOME"], environ["MODEL"]) == ("/home/here", "large")
    assert "CUDA_VISIBLE_DEVICES" not in environ


def test_folders_that_are_not_here_are_left_out(tmp_path: Path) -> None:
    here, missing = tmp_path / "here", tmp_path / "missing"
    here.mkdir()

    order = localized(_order(missing, [missing, here]))

    assert order["path"] == [os_bytes(str(here))]
    assert order["cwd"] == os_bytes(os.getcwd())


def test_folders_where_others_may_put_files_are_left_out(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)

    assert localized(_order(tmp_path, [shared]))["path"] == []


@pytest.mark.parametrize(("wanted", "here"), [({"PYTHONHASHSEED": "5"}, None), ({}, "random")])
def test_another_hash_seed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, str], here: str | None
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if here is not None:
        monkeypatch.setenv("PYTHONHASHSEED", here)

    with pytest.raises(StartError, match="PYTHONHASHSEED"):
        localized(_order(tmp_path, [], **wanted))


def test_a_hash_seed_that_both_have_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "5")

    assert localized(_order(tmp_path, [], PYTHONHASHSEED="5"))["environ"]["PYTHONHASHSEED"] == "5"
