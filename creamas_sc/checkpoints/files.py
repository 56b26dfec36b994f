"""The files of checkpoints: blocking calls, for a thread."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from creamas_sc.errors import CheckpointError
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.wire.frames import Frame, FrameReader

VERSION: Final = 1
MANIFEST: Final = "manifest"
MASTER: Final = "master"
_STEP: Final = "step-"
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class PartFile:
    """A file of a checkpoint.

    Attributes:
        name: In the checkpoint's folder.
        sizes: Of the frames that it consists of, in bytes.
        sha256: Of the whole file.
        url: The base URL of the environment of which it is.
        numbers: Of a slave: its agents'; its first frame is of the environment, the others are of
            these.
    """

    name: str
    sizes: list[int]
    sha256: str
    url: str
    numbers: list[Order] = field(default_factory=list)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """What `asdict` has described, read from JSON."""
        numbers = [tuple(each) if isinstance(each, list) else each for each in described["numbers"]]
        return cls(**{**described, "numbers": numbers})


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of.

    Attributes:
        step: After which it was taken; 0 for before the first one.
        run: The id of the run.
        master: The master's file.
        slaves: Those of the slaves.
        code: Path -> SHA-256 of the files of the user's code.
        script: File, package and arguments of the script that made the simulation, if one did.
        path: Folders of the user's in which modules were looked for.
        cwd: The working folder.
    """

    step: int
    run: str
    master: PartFile
    slaves: list[PartFile]
    code: dict[str, str]
    script: tuple[str, str | None, tuple[str, ...]] | None
    path: list[str]
    cwd: str
    version: int = VERSION

    def encode(self) -> bytes:
        """The manifest as bytes that show by themselves whether one was changed."""
        data = json.dumps(asdict(self)).encode()
        return hashlib.sha256(data).hexdigest().encode() + b"\n" + data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The reverse of `encode`.

        Raises:
            ValueError: They are other bytes, or those of another version.
        """
        digest, _, described = data.partition(b"\n")
        if hashlib.sha256(described).hexdigest().encode() != digest:
            raise ValueError("it was changed: its SHA-256 is another one")
        fields = json.loads(described)
        if fields["version"] != VERSION:
            raise ValueError(
                f"it has the form {fields['version']}, and this version of creamas_sc reads "
                f"{VERSION}"
            )
        if fields["script"] is not None:
            file, package, argv = fields["script"]
            fields["script"] = file, package, tuple(argv)
        fields["master"] = PartFile.of(fields["master"])
        fields["slaves"] = [PartFile.of(each) for each in fields["slaves"]]
        return cls(**fields)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run_file: The file of its record.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, run_file: Path) -> None:
        self.folder = run_file.with_suffix(".checkpoints")

    def steps(self) -> list[int]:
        """After which steps there are whole ones, in ascending order."""
        numbers = [path.parent.name.removeprefix(_STEP) for path in self.folder.glob("*/manifest")]
        return sorted(int(number) for number in numbers if number.isdecimal())

    def place(self, step: int) -> Path:
        """The folder of one."""
        return self.folder / f"{_STEP}{step}"

    def begin(self, step: int) -> Path:
        """Make the folder of one that is to be written; what is left there is removed."""
        place = self.place(step)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def commit(self, manifest: Manifest, kept: int) -> None:
        """Make one whole, whose files are there, and remove all but the last ``kept``."""
        place = self.place(manifest.step)
        write_file(place / MANIFEST, [manifest.encode()])
        for folder in (place, self.folder, self.folder.parent):
            _sync_folder(folder)
        self.drop(self.steps()[:-kept])

    def drop(self, steps: Iterable[int]) -> None:
        """Remove those after these steps, and what was never whole."""
        for step in steps:
            # First the manifest: what is left of a checkpoint is none.
            (self.place(step) / MANIFEST).unlink(missing_ok=True)
        for place in self.folder.glob(f"{_STEP}*"):
            if not (place / MANIFEST).exists():
                shutil.rmtree(place, ignore_errors=True)

    def manifest(self, step: int | None = None) -> Manifest:
        """What one consists of.

        Args:
            step: After which it was taken; None for the last one.

        Raises:
            CheckpointError: There is none, or its manifest was changed.
        """
        steps = self.steps()
        if not steps:
            raise refusal(f"there are no checkpoints in {self.folder}")
        wanted = steps[-1] if step is None else step
        if wanted not in steps:
            raise refusal(
                f"there is no checkpoint of step {wanted} in {self.folder}; there are those of "
                f"{', '.join(map(str, steps))}"
            )
        path = self.place(wanted) / MANIFEST
        try:
            return Manifest.decode(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, wanted, error) from error

    def read(self, step: int | None = None) -> Manifest:
        """As `manifest`; all files are as they were written.

        Raises:
            CheckpointError: They are not.
        """
        manifest = self.manifest(step)
        for part in (manifest.master, *manifest.slaves):
            path = self.place(manifest.step) / part.name
            try:
                if _digest(path) != (sum(part.sizes), part.sha256):
                    raise ValueError("it was changed: its size or its SHA-256 is another one")
            except (OSError, ValueError) as error:
                raise self._damaged(path, manifest.step, error) from error
        return manifest

    def _damaged(self, path: Path, step: int, error: Exception) -> CheckpointError:
        why = getattr(error, "strerror", None) or error
        others = [each for each in self.steps() if each != step]
        hint = f"; to go on from the checkpoint of step {others[-1]}, ask for it" if others else ""
        return refusal(f"{path}: {why}{hint}")


def find_run(place: Path) -> Path:
    """The file of the one run with checkpoints in a folder, or the file itself.

    Raises:
        CheckpointError: There is none, or more than one.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise refusal(f"there is no record {place}")
    files = [file for file in sorted(place.glob("run-*.sqlite")) if Checkpoints(file).steps()]
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.name for file in files)
        raise refusal(f"{place} has several runs with checkpoints: name one of {names}")
    raise refusal(
        f"{place} has no run with a checkpoint: they are written where "
        "Record(folder, checkpoint_every=...) asks for them"
    )


def refusal(text: str) -> CheckpointError:
    """The error of what was not even begun."""
    return CheckpointError(text, may_have_run=False)


def write_file(path: Path, pieces: Sequence[bytes]) -> str:
    """Write a file so that it is there whole or not at all; returns its SHA-256."""
    draft = path.with_name(f".{path.name}")
    digest = hashlib.sha256()
    with draft.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    return digest.hexdigest()


def read_frames(path: Path, sizes: Sequence[int], wanted: Iterable[int]) -> Iterator[Frame]:
    """Frames of a file.

    Args:
        sizes: Of all.
        wanted: Which of them, in ascending order.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        at = 0
        for index in wanted:
            file.seek(sum(sizes[at:index]), os.SEEK_CUR)
            (frame,) = FrameReader().receive_data(file.read(sizes[index]))
            at = index + 1
            yield frame


def _digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
