"""The file of one run, written by one process: blocking calls, for a thread.

Each run has a file of its own, ``run-1.sqlite``, ``run-2.sqlite`` ... in the record's folder; the
name of a new one is claimed by creating it. While it is written it is locked, by a lock that ends
with the process. Objects too large for a table are in ``objects``, named by the SHA-256 of their
bytes; one is there before any row refers to it.

On a local disk SQLite writes ahead (WAL), so that readers and the writer do not wait for each
other, and a commit waits for no disk; on a network's file system, where that does not work, it
keeps a journal. Either way, what was committed is there after the process was killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import stat
import time
import uuid
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from creamas_sc.errors import BadValue
from creamas_sc.results.columns import to_json
from creamas_sc.results.schema import COLUMNS, RUN, SQL, VERSION, insert
from creamas_sc.runtime.validation import make_folder

OBJECTS: Final = "objects"
# Objects of more bytes are files.
INLINE_BYTES: Final = 1 << 16
# How long a reader may keep the file locked, where there is no WAL.
BUSY_SECONDS: Final = 10.0
_OBJECT = COLUMNS["artifacts"].index("object")
_NETWORKS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs")
_MOUNTS = Path("/proc/self/mountinfo")


class Batch(NamedTuple):
    """What one transaction writes.

    Attributes:
        step: The step that it makes whole; None for what belongs to none.
        rows: By table.
        run: Columns of the run that change.
    """

    step: int | None
    rows: dict[str, list[tuple[Any, ...]]]
    run: dict[str, Any]


class RecordGone(OSError):
    """The file is not where it was created."""


class RunFile:
    """The file of a run that is being written; made by `create`.

    Attributes:
        path: Where it is.
        step: The last one that is whole.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.step = 0
        self._lock = lock
        # Its calls come from one thread after the other, never from two at once.
        self._db = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._inode = os.stat(path).st_ino

    @classmethod
    def create(cls, folder: str, run: dict[str, Any]) -> RunFile:
        """Create the file of a new run.

        Args:
            run: Columns of the run.

        Raises:
            BadValue: There can be none in that folder.
        """
        record_folder(folder)
        try:
            path, lock = _claim(Path(folder))
            try:
                file = cls(path, lock)
                file._begin(run, on_network(folder))
            except BaseException:
                _release(path, lock)
                raise
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise BadValue(f"nothing can be recorded in the folder {folder}: {why}") from error
        return file

    def _begin(self, run: dict[str, Any], network: bool) -> None:
        self._set_modes(network)
        self._db.executescript(f"BEGIN IMMEDIATE; {SQL}; PRAGMA user_version = {VERSION};")
        self._db.execute(
            f"INSERT INTO run ({', '.join(RUN)}) VALUES ({', '.join('?' * len(RUN))})",
            [run.get(name) for name in RUN],
        )
        self._db.execute("COMMIT")

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Open the file of a run that is to go on.

        Raises:
            BadValue: It is no such file, or is damaged, or another process writes it.
        """
        try:
            file = cls(path, lock_file(path))
        except BlockingIOError as error:
            raise BadValue(str(error)) from None
        except OSError as error:
            raise BadValue(f"{path} cannot be read: {error.strerror}") from error
        try:
            file._take_up()
        except BaseException as error:
            file.close()
            if isinstance(error, sqlite3.Error):
                raise BadValue(f"{path} cannot be read: {error}") from error
            raise
        return file

    @classmethod
    def branch(cls, path: Path) -> Self:
        """Create the file of a new run with all that another one has.

        Raises:
            BadValue: The other is no such file, or there can be none in its folder.
        """
        record_folder(path.parent)
        try:
            file = cls(*_claim(path.parent))
            try:
                with closing(
                    sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
                ) as db:
                    db.backup(file._db)
                file._take_up()
            except BaseException:
                file.discard()
                raise
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise BadValue(f"{path} cannot be copied: {why}") from error
        return file

    def branched(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of the run that make it another one, with further parameters."""
        (known,) = self._db.execute("SELECT parameters FROM run").fetchone()
        merged = {**json.loads(known), **parameters}
        return {"id": uuid.uuid4().hex, "parameters": to_json(merged)}

    def discard(self) -> None:
        """Close and remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _take_up(self) -> None:
        """Check what is in the file, and be ready to write.

        Raises:
            BadValue: It is of another form, or damaged.
        """
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise BadValue(
                f"{self.path} has the form {version}; this version of creamas_sc goes on with "
                f"files of the form {VERSION}"
            )
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise BadValue(f"{self.path} is damaged: {found}")
        self._set_modes(on_network(str(self.path.parent)))
        (self.step,) = self._db.execute("SELECT coalesce(max(step), 0) FROM steps").fetchone()

    def _set_modes(self, network: bool) -> None:
        self._db.execute(f"PRAGMA journal_mode = {'TRUNCATE' if network else 'WAL'}")
        self._db.execute(f"PRAGMA synchronous = {'FULL' if network else 'NORMAL'}")

    @property
    def id(self) -> str:
        """The id of the run."""
        (found,) = self._db.execute("SELECT id FROM run").fetchone()
        return str(found)

    def sync(self) -> None:
        """Have all that was written survive a loss of power, and of the file beside this one."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            with suppress(FileNotFoundError), path.open("rb") as file:
                os.fsync(file.fileno())

    def cut(self, step: int, run: Mapping[str, Any], event: str, details: str) -> None:
        """Remove what came after a step, note an event, and change columns of the run.

        Raises:
            sqlite3.Error: It cannot be written.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for table in COLUMNS:
                self._db.execute(f"DELETE FROM {table} WHERE step > ?", [step])
            for name, value in run.items():
                self._db.execute(f"UPDATE run SET {name} = ?", [value])
            self._db.execute(insert("events"), [step, now(), event, details])
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.step = step

    def write(self, batch: Batch) -> None:
        """Write all of a batch, or nothing; one of a step that is there already is left alone.

        Raises:
            RecordGone: The file was removed or moved.
            OSError, sqlite3.Error: It cannot be written: the disk is full, say.
        """
        if batch.step is not None and batch.step <= self.step:
            return  # it was written after the wait for it had ended
        self._check_there()
        rows = dict(batch.rows)
        if "artifacts" in rows:
            rows["artifacts"] = [self._with_file(row) for row in rows["artifacts"]]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for table, of_table in rows.items():
                self._db.executemany(insert(table), of_table)
            for name, value in batch.run.items():
                self._db.execute(f"UPDATE run SET {name} = ?", [value])
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if batch.step is not None:
            self.step = batch.step

    def close(self) -> None:
        """Leave one file, which can be read where nothing can be written."""
        try:
            with suppress(sqlite3.Error):  # a reader has it open: the next one finds all of it
                self._db.execute("PRAGMA busy_timeout = 100")
                self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.close()
        finally:
            _release(self.path, self._lock)

    def _check_there(self) -> None:
        with suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                return
        raise RecordGone(f"{self.path} was removed or moved")

    def _with_file(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row of an artifact; a large object is in a file then."""
        data = row[_OBJECT]
        if data is None or len(data) <= INLINE_BYTES:
            return row
        name = hashlib.sha256(data).hexdigest()
        folder = self.path.parent / OBJECTS
        place = folder / name
        if not place.exists():
            folder.mkdir(exist_ok=True)
            draft = folder / f".{name}.{os.getpid()}"
            try:
                draft.write_bytes(data)
                draft.replace(place)
            finally:
                draft.unlink(missing_ok=True)
        return (*row[:_OBJECT], None, name)


def record_folder(folder: str | os.PathLike[str]) -> Path:
    """Create a folder for records, if need be.

    Raises:
        BadValue: It cannot be created, or every user may write to it. SQLite believes what lies
            beside a database under the name of its journal, also if another user has put it there.
    """
    path = Path(make_folder(folder) or "")
    if path.stat().st_mode & stat.S_IWOTH:
        raise BadValue(
            f"nothing can be recorded in the folder {folder}: every user may write to it, and "
            "could change what is read from there; record into a folder of your own"
        )
    return path


def read_object(folder: Path, name: str) -> bytes:
    """The bytes of an object in a file.

    Raises:
        OSError: It is gone.
        ValueError: It was changed.
    """
    data = (folder / OBJECTS / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != name:
        raise ValueError(f"{folder / OBJECTS / name} was changed: its SHA-256 is another one")
    return data


def on_network(folder: str) -> bool:
    """Whether a folder is on another machine, where SQLite's shared memory does not work."""
    path = os.path.realpath(folder)
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return False
    longest, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = before.split()[4].encode().decode("unicode_escape")  # a space is \\040
        if len(mount) >= longest and (path + "/").startswith(mount.rstrip("/") + "/"):
            longest, kind = len(mount), after.split()[0]
    return kind.removeprefix("fuse.").startswith((*_NETWORKS, "sshfs"))


def _claim(folder: Path) -> tuple[Path, int]:
    """Create the file of a new run, and lock it; its path and the lock."""
    taken = [_number(path) for path in folder.glob("run-*.sqlite")]
    for number in range(max(taken, default=0) + 1, 1 << 31):
        path = folder / f"run-{number}.sqlite"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return path, lock_file(path)
    raise OSError("it has too many runs")


def lock_file(path: Path) -> int:
    """Lock the file of a run; the lock ends with this process, or when it is closed.

    Raises:
        BlockingIOError: Another process writes it.
    """
    lock = os.open(_lock_of(path), os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BlockingIOError(f"{path} is being written by another process") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _lock_of(path: Path) -> Path:
    # Another file: SQLite's own locks end when any descriptor of the database is closed.
    return path.with_name(f".{path.stem}.lock")


def _release(path: Path, lock: int) -> None:
    with suppress(OSError):
        _lock_of(path).unlink(missing_ok=True)
    os.close(lock)


def _number(path: Path) -> int:
    number = path.stem.removeprefix("run-")
    return int(number) if number.isascii() and number.isdigit() else 0


def now() -> float:
    """Seconds since 1970."""
    return time.time()
