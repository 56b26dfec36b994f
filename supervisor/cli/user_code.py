"""Users' modules in the process of a command: where they are looked for, and what they raise."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from creamas_sc.errors import AgentErrors, CreamasError
from creamas_sc.foreign import summary_of
from creamas_sc.simulation_files.names import look_in
from supervisor.cli.exits import Failure
from supervisor.cli.output import note


@contextmanager
def searched(folders: Sequence[str]) -> Iterator[None]:
    """Look for modules in these folders first, and in the working folder last, where create does.

    Processes that are started meanwhile have the same import path.
    """
    before, here = sys.path[:], os.getcwd()
    if not look_in(folders, here):
        note(f"{here} is not searched for modules, since other users may write to it")
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def own_errors() -> Iterator[None]:
    """Say in a line what the user's classes have raised in this process."""
    try:
        yield
    except (Failure, CreamasError, AgentErrors, OSError):
        raise
    except Exception as error:
        raise Failure(f"the simulation's own code failed: {summary_of(error)}") from error
