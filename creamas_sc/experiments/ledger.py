"""The ledger of an experiment: which runs there are, and what came of them.

One process writes it, a row at a time; it is locked meanwhile, by a lock that ends with the
process. Others may read it at any time.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from creamas_sc.errors import BadValue
from creamas_sc.experiments.design import Run
from creamas_sc.results.run_file import lock_file, on_network, record_folder

FILE: Final = "experiment.sqlite"
_VERSION: Final = 1
_SQL: Final = """
CREATE TABLE experiment (
    name TEXT PRIMARY KEY,   -- build, steps, seed, metrics, parameters (names), simulation or code
    value TEXT               -- JSON
);
CREATE TABLE runs (
    key TEXT PRIMARY KEY,
    parameters TEXT,         -- JSON
    replicate INTEGER,
    seed TEXT,
    state TEXT,              -- planned, running, done, failed or lost
    pid INTEGER,             -- of the process that runs it, or has
    began REAL,              -- seconds since 1970
    seconds REAL,
    error TEXT,
    traceback TEXT
);
"""
RUN_COLUMNS: Final = (
    *("key", "parameters", "replicate", "seed", "state"),
    *("pid", "began", "seconds", "error", "traceback"),
)


class Ledger:
    """The ledger in a folder, which is created if need be.

    Raises:
        BadValue: There can be none in the folder, or another process is running the experiment.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = record_folder(folder)
        path = self.folder / FILE
        try:
            self._lock = lock_file(path)
        except BlockingIOError:
            raise BadValue(
                f"the experiment in {self.folder} is running in another process"
            ) from None
        except OSError as error:
            raise BadValue(
                f"no experiment can be kept in {self.folder}: {error.strerror}"
            ) from error
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._begin(path)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, sqlite3.OperationalError):  # the disk's
                raise BadValue(f"no experiment can be kept in {self.folder}: {error}") from error
            if isinstance(error, sqlite3.Error):
                raise BadValue(f"{path} is not the ledger of an experiment: {error}") from error
            raise

    def _begin(self, path: Path) -> None:
        mode = "TRUNCATE" if on_network(str(self.folder)) else "WAL"
        self._db.execute(f"PRAGMA journal_mode = {mode}")
        ((version,),) = self._db.execute("PRAGMA user_version")
        if version == 0:
            script = f"BEGIN IMMEDIATE; {_SQL}; PRAGMA user_version = {_VERSION}; COMMIT;"
            self._db.executescript(script)
        elif version != _VERSION:
            raise BadValue(f"{path} is of another version of creamas-sc: {version}, not {_VERSION}")

    def close(self) -> None:
        """Close it; another process may run the experiment then."""
        self._db.close()
        os.close(self._lock)

    def check(self, now: Mapping[str, Any]) -> None:
        """Note what the experiment is, or check that it still is that.

        Raises:
            BadValue: It differs from what is noted; the message says in what.
            OSError: It cannot be noted.
        """
        for name, value in now.items():
            text = json.dumps(value)
            with self._writing():
                insert = "INSERT OR IGNORE INTO experiment VALUES (?, ?)"
                self._db.execute(insert, (name, text))
                query = "SELECT value FROM experiment WHERE name = ?"
                ((kept,),) = self._db.execute(query, (name,))
            if kept != text:
                was = "" if name in ("code", "simulation") else f": {kept}, and now {text}"
                raise BadValue(
                    f"the folder {self.folder} has an experiment of which the {name} differs{was}; "
                    "take another folder, or remove this one to begin again "
                    "(creamas_sc.results.open reads what is in it)"
                )

    def plan(self, runs: Iterable[Run]) -> list[Run]:
        """Note the runs; return those that are not done, in order."""
        lost = "UPDATE runs SET state = 'lost', error = ? WHERE state = 'running'"
        with self._writing():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(lost, ("the process that ran the experiment ended",))
            self._db.executemany(
                "INSERT OR IGNORE INTO runs (key, parameters, replicate, seed, state) "
                "VALUES (?, ?, ?, ?, 'planned')",
                [
                    (run.key, json.dumps(run.parameters), run.replicate, str(run.seed))
                    for run in runs
                ],
            )
            self._db.execute("COMMIT")
        done = {key for (key,) in self._db.execute("SELECT key FROM runs WHERE state = 'done'")}
        return [run for run in runs if run.key not in done]

    def begin(self, key: str, pid: int | None) -> None:
        """Note that a run begins."""
        self._set(key, state="running", pid=pid, began=time.time(), seconds=None, error=None,
                  traceback=None)  # fmt: skip

    def end(
        self, key: str, state: str, seconds: float, error: str | None, traceback: str | None
    ) -> None:
        """Note what came of a run."""
        self._set(key, state=state, seconds=seconds, error=error, traceback=traceback)

    def put_back(self) -> None:
        """Note that the runs under way were stopped, and are to be run again."""
        query = "UPDATE runs SET state = 'planned', pid = NULL, began = NULL"
        self._db.execute(f"{query} WHERE state = 'running'")

    def _set(self, key: str, **columns: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._writing():
            self._db.execute(f"UPDATE runs SET {names} WHERE key = ?", (*columns.values(), key))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(
                f"the ledger {self.folder / FILE} cannot be written: {error}; mend that, and run "
                "the experiment again: what is done is kept"
            ) from None


def read_runs(folder: Path) -> list[tuple[Any, ...]]:
    """All rows of an experiment's ledger, `RUN_COLUMNS` each, in the order of planning."""
    path = folder / FILE
    if not path.is_file():
        return []
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        if database.execute("PRAGMA user_version").fetchone() == (0,):  # it is being made
            return []
        query = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs ORDER BY rowid"
        return database.execute(query).fetchall()
    finally:
        database.close()
