"""The row about the runtime folder: files of a daemon are removed while it runs."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from creamas_sc.client import SyncSimulation, connect_sync
from creamas_sc.errors import CreamasError
from creamas_sc.runtime.paths import runtime_path
from tests.faults.daemon import CALL_SECONDS, SLAVES, daemon
from tests.faults.registry import Figures, row

NAME = "row-15"
BACK_SECONDS = 15.0
PAUSE_SECONDS = 0.05
# A different moment each time between two looks of the daemon at its files.
WINDOW_SECONDS = 5.0
FOLDER = "the folder"
FILES = {
    "the key": ["key"],
    "the lock": [f"{NAME}.lock"],
    "the socket": [f"{NAME}.sock"],
    "lock and socket": [f"{NAME}.lock", f"{NAME}.sock"],
}
# Nobody's but the user's, or another program's.
OTHERS = ("notes", "other.sock")

T = TypeVar("T")


@row(
    15,
    "the daemon's folder, key, lock or socket is removed while it runs",
    f"reached again <= {BACK_SECONDS:g} s, its simulation lives; only its own files go at its end",
    cases=(FOLDER, *FILES),
    rounds=60,
    short=1,
    quick=0,
)
def removed(case: str, number: int, folder: Path) -> Figures:
    """Remove it from a runtime folder of its own: the daemon's clients need the path short."""
    with tempfile.TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", base)
        with socket.socket(socket.AF_UNIX) as other:
            with daemon(NAME, folder):
                seconds = _remove_and_return(case, number, other)
            left = {path.name for path in runtime_path().rglob("*") if not path.is_dir()}
            assert left == {"key", *OTHERS}, left
    return {"seconds": seconds}


def _remove_and_return(case: str, number: int, other: socket.socket) -> float:
    """Seconds from the removal until a new client had been served."""
    with connect_sync(NAME, timeout=CALL_SECONDS) as client:
        client.create("one", slave_addrs=SLAVES)
        with client.attach("one") as simulation:
            for addr in simulation.get_addrs():
                simulation.spawn("tests.support.agents:Counter", addr=addr)
            assert simulation.trigger_all() == [1, 1]
            if number:  # the test suite does not wait
                time.sleep(random.Random(number).random() * WINDOW_SECONDS)
            began = time.monotonic()
            _remove(case, other)
            assert simulation.trigger_all() == [2, 2]
            _again(lambda: _use(3), began)
            seconds = time.monotonic() - began
            _again((runtime_path() / f"{NAME}.lock").stat, began)
            # The slaves listen again, too: these have not called each other yet.
            addrs = simulation.get_addrs()
            _again(lambda: _ask(simulation, addrs), began)
    return seconds


def _remove(case: str, other: socket.socket) -> None:
    folder = runtime_path()
    if case == FOLDER:
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    for name in FILES.get(case, []):
        (folder / name).unlink()
    (folder / OTHERS[0]).write_text("precious")
    other.bind(os.fspath(folder / OTHERS[1]))


def _again(call: Callable[[], T], began: float) -> T:
    """What a call returns when it first succeeds."""
    while True:
        try:
            return call()
        except (CreamasError, FileNotFoundError):
            if time.monotonic() - began > BACK_SECONDS:
                raise
            time.sleep(PAUSE_SECONDS)


def _use(step: int) -> None:
    with connect_sync(NAME, timeout=CALL_SECONDS) as client:
        assert [each["name"] for each in client.ls()] == ["one"]
        with client.attach("one") as simulation:
            assert simulation.trigger_all() == [step, step]


def _ask(simulation: SyncSimulation, addrs: list[str]) -> None:
    asker, _ = simulation.spawn("tests.support.agents:Echo", addr=addrs[0])
    _, asked = simulation.spawn("tests.support.agents:Echo", addr=addrs[1])
    assert asker.ask(asked, "there") == "there"
