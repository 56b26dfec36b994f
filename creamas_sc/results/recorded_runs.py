"""Files of runs, and the objects in them, as readers find them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from creamas_sc.errors import BadValue
from creamas_sc.results.describing import decode_object
from creamas_sc.results.run_file import BUSY_SECONDS, read_object
from creamas_sc.results.schema import VERSION
from creamas_sc.serializers import get_serializers, to_serializers
from creamas_sc.wire.codec import Codec


def find_runs(path: str | os.PathLike[str]) -> tuple[RecordedRun, ...]:
    """The runs in a folder, a file or an experiment; see `creamas_sc.results.open`.

    Raises:
        FileNotFoundError: There is no such folder or file.
        BadValue: There are no runs, or the file is none of a run.
    """
    place = Path(path)
    if not place.is_dir():
        if not place.exists():
            raise FileNotFoundError(f"there is no record {place}")
        run = RecordedRun(place.stem, place)
        if not run.is_begun:
            raise BadValue(f"the file {place} has no record of a run in it")
        return (run,)
    files = sorted(place.glob("run-*.sqlite"), key=lambda file: (len(file.name), file.name))
    found = [RecordedRun(file.stem, file) for file in files]
    # Of an experiment, a folder has the record of each run.
    experiment = sorted(place.glob("runs/*/run-1.sqlite"))
    found += [RecordedRun(file.parent.name, file) for file in experiment]
    runs = [run for run in found if run.is_begun]
    if not runs:
        raise BadValue(f"the folder {place} has no record of a run in it")
    return tuple(runs)


@dataclass(frozen=True)
class RecordedRun:
    """The file of a run."""

    name: str
    path: Path

    @property
    def is_begun(self) -> bool:
        """Whether it has its tables; it gets them right after it was created."""
        return self._version() != 0

    def select(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query, all of one moment.

        Raises:
            BadValue: It is not the file of a run, or of another version.
            OSError: It cannot be read.
        """
        version = self._version()
        if version != VERSION:
            raise BadValue(
                f"{self.path} is not a record that this creamas-sc can read: its version is "
                f"{version}, not {VERSION}"
            )
        return self._select(query, parameters)

    def _version(self) -> int:
        ((version,),) = self._select("PRAGMA user_version", ())
        return version  # type: ignore[no-any-return]

    def _select(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        try:
            database = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)
            try:
                return database.execute(query, parameters).fetchall()
            finally:
                database.close()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise OSError(f"{self.path} cannot be read: {error}") from error
            raise BadValue(f"{self.path} is not the record of a run: {error}") from error


class RecordedObjects(Sequence[Any]):
    """A column of objects, each decoded when it is asked for."""

    def __init__(
        self, inline: Sequence[Any], files: Sequence[Any], folders: Sequence[Path]
    ) -> None:
        self._inline, self._files, self._folders = inline, files, folders

    def __len__(self) -> int:
        return len(self._inline)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        data = self.encoded(index)
        return None if data is None else decode_object(self._codec, data)

    @cached_property
    def _codec(self) -> Codec:
        return Codec(to_serializers(get_serializers()), references=_Addresses())

    def encoded(self, index: int) -> bytes | None:
        """The object as it is in the record; None if it could not be encoded."""
        name = self._files[index]
        return self._inline[index] if name is None else read_object(self._folders[index], name)


class _Addresses:
    """Agents in objects, which are gone: each is its address."""

    types: tuple[type, ...] = ()

    def describe(self, obj: Any) -> tuple[str, str]:
        """Nothing is encoded here."""
        raise NotImplementedError

    def resolve(self, address: str, class_name: str) -> str:
        """The address."""
        return address
