"""Files of checkpoints: whole or not there, and old ones are removed only after new ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.checkpoints.files import (
    MANIFEST,
    Checkpoints,
    Manifest,
    PartFile,
    find_run,
    read_frames,
    write_file,
)
from creamas_sc.errors import CheckpointError
from creamas_sc.mp.checkpoint_parts import assign, moves
from creamas_sc.mp.resuming import Resumption
from creamas_sc.results.run_file import Batch, RunFile
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.wire.frames import Kind, encode_frame

LATER = sys.maxsize  # begins the number of an agent that nothing spawned
NUMBERS: list[list[Order]] = [[0, 2, (2, 0)], [1]]
FRAMES = [b"".join(encode_frame(Kind.EVENT, 0, b"", b"x" * n)) for n in (3, 5, 7)]


def part(place: Path, name: str, url: str = "", numbers: Any = ()) -> PartFile:
    digest = write_file(place / name, FRAMES)
    return PartFile(name, list(map(len, FRAMES)), digest, url, list(numbers))


def write(checkpoints: Checkpoints, step: int, kept: int = 2) -> Manifest:
    place = checkpoints.begin(step)
    slaves = [part(place, "slave-0", "tcp://a:1/", [0, (0, 1)])]
    script = ("a.py", None, ("a",))
    master = part(place, "master")
    manifest = Manifest(step, "id", master, slaves, {"/a.py": "0"}, script, ["/"], "/")
    checkpoints.commit(manifest, kept)
    return manifest


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "run-1.sqlite")


def test_the_last_ones_are_kept(checkpoints: Checkpoints) -> None:
    assert checkpoints.steps() == []
    written = [write(checkpoints, step) for step in (0, 8, 10)]
    assert checkpoints.steps() == [8, 10]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-10", "step-8"]
    assert checkpoints.read() == written[2]
    assert checkpoints.read(8) == written[1]
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 9 .*; there are those of 8"):
        checkpoints.read(9)


def test_what_has_no_manifest_is_none(checkpoints: Checkpoints) -> None:
    write(checkpoints, 1)
    part(checkpoints.begin(2), "master")
    assert checkpoints.steps() == [1]
    assert checkpoints.read().step == 1
    write(checkpoints, 3)  # which removes it
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-1", "step-3"]


def test_nothing_is_removed_if_the_new_one_cannot_be_written(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        write(checkpoints, step)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "rename"):
        with monkeypatch.context() as patched:
            patched.setattr(os if name == "fsync" else Path, name, full)
            with pytest.raises(OSError, match="No space"):
                write(checkpoints, 3)
        assert checkpoints.steps() == [1, 2]
        assert checkpoints.read().step == 2


@pytest.mark.parametrize("name", [MANIFEST, "master", "slave-0"])
def test_a_flipped_bit_is_seen(checkpoints: Checkpoints, name: str) -> None:
    for step in (1, 2):
        write(checkpoints, step)
    path = checkpoints.place(2) / name
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), max(1, len(data) // 20)):
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{path}.*the checkpoint of step 1"):
            checkpoints.read()
        data[at] ^= 1
    assert checkpoints.read(1).step == 1
    path.unlink()
    if name != MANIFEST:
        with pytest.raises(CheckpointError, match=f"{path}: No such file"):
            checkpoints.read()


def test_one_of_another_form_is_refused(checkpoints: Checkpoints) -> None:
    manifest = write(checkpoints, 1)
    object.__setattr__(manifest, "version", 2)
    write_file(checkpoints.place(1) / MANIFEST, [manifest.encode()])
    with pytest.raises(CheckpointError, match="it has the form 2"):
        checkpoints.read()


def test_frames_are_read_one_by_one(tmp_path: Path) -> None:
    found = part(tmp_path, "master")
    for wanted, lengths in (([0, 2], [3, 7]), ([1], [5]), (range(3), [3, 5, 7])):
        frames = read_frames(tmp_path / "master", found.sizes, wanted)
        assert [len(frame.body) for frame in frames] == lengths


def test_the_run_that_has_checkpoints_is_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no record .*/none"):
        find_run(tmp_path / "none")
    for number in (1, 2, 3):
        (tmp_path / f"run-{number}.sqlite").touch()
    with pytest.raises(CheckpointError, match="has no run with a checkpoint"):
        find_run(tmp_path)
    write(Checkpoints(tmp_path / "run-2.sqlite"), 1)
    assert find_run(tmp_path) == tmp_path / "run-2.sqlite"
    assert find_run(tmp_path / "run-1.sqlite") == tmp_path / "run-1.sqlite"
    write(Checkpoints(tmp_path / "run-3.sqlite"), 1)
    with pytest.raises(CheckpointError, match=r"name one of run-2.sqlite, run-3.sqlite"):
        find_run(tmp_path)


def test_as_many_slaves_take_up_what_they_had() -> None:
    assert assign(NUMBERS, 2) == [[(0, 0), (0, 1), (0, 2)], [(1, 0)]]


def test_others_get_the_agents_dealt_out_by_number() -> None:
    assert assign(NUMBERS, 1) == [[(0, 0), (1, 0), (0, 1), (0, 2)]]
    # Each with those that it made, and what nothing spawned on its own.
    assert assign(NUMBERS, 3) == [[(0, 0)], [(1, 0)], [(0, 1), (0, 2)]]
    numbers: list[list[Order]] = [[0, (0, 0), (0, 0, 1), (LATER, 1, 3), (LATER, 1, 3, 0)], [1]]
    assert assign(numbers, 3) == [[(0, 0), (0, 1), (0, 2)], [(1, 0)], [(0, 3), (0, 4)]]


def test_every_address_moves(tmp_path: Path) -> None:
    master = PartFile("master", [], "", "tcp://m:1/")
    slaves = [PartFile("a", [], "", "tcp://a:1/", [0, 1]), PartFile("b", [], "", "tcp://b:1/", [2])]
    manifest = Manifest(1, "id", master, slaves, {}, None, [], "/")
    assert moves(manifest, ["tcp://x:1/"], "tcp://n:1/") == {
        "tcp://m:1/0": "tcp://n:1/0",
        "tcp://a:1/0": "tcp://x:1/0",
        "tcp://b:1/0": "tcp://x:1/0",
        "tcp://a:1/1": "tcp://x:1/1",
        "tcp://a:1/2": "tcp://x:1/2",
        "tcp://b:1/1": "tcp://x:1/3",
    }


@pytest.mark.parametrize(("recorded", "step"), [(9, 8), (8, 8), (7, 4), (3, None)])
async def test_the_last_one_that_the_record_has_reached_is_taken(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, recorded: int, step: int | None
) -> None:
    monkeypatch.setattr(Resumption, "_read_setup", lambda self: {"slaves": []})
    file = RunFile.create(str(checkpoints.folder.parent), {"id": "id"})
    for number in range(1, recorded + 1):
        mark = (number, 0, 0.0, 0.0, 1, 0, None, None, None)
        file.write(Batch(number, {"steps": [mark]}, {}))
    file.close()
    for number in (4, 8):
        write(checkpoints, number)
    if step is None:
        with pytest.raises(CheckpointError, match="has the steps up to 3, and the checkpoint is"):
            await Resumption.open(file.path)
        return
    resumption = await Resumption.open(file.path)
    assert resumption._manifest.step == step
    await resumption.give_up()
