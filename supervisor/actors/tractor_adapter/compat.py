"""Imports the tractor that this installation carries, with stand-ins for what it misses.

It is 0.1.0a5 and no other: the build fetches it by its hash (see .build/carry_tractor.py). It was
written in 2022, for trio 0.20. While it is imported, `sys.modules` has stand-ins under the names
below; tractor keeps them, and no other module sees them. No file of tractor is changed. Each
stand-in has its reason beside it, and a test that fails as soon as tractor does not need it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

import tricycle  # noqa: F401 - tractor uses it, and it must see the real trio
import trio

from creamas_sc.runtime.installation import CARRIED, how_to_install
from creamas_sc.runtime.nurseries import open_unwrapping_nursery, split_cancellation

# The highest level that tractor knows, so that nothing is logged: the supervisor logs an actor's
# end, once.
QUIET = "PDB"

TRIO_NAMES: Mapping[str, object] = {
    # trio now raises Python's own groups, which do the same in an `except`.
    "MultiError": BaseExceptionGroup,
    # trio's now wraps a single error in a group; tractor catches errors by their type.
    "open_nursery": open_unwrapping_nursery,
}

MODULES: Mapping[str, Mapping[str, object]] = {
    # What tractor uses of it is in Python's own contextlib.
    "async_generator": {
        "aclosing": contextlib.aclosing,
        "asynccontextmanager": contextlib.asynccontextmanager,
    },
    # What tractor uses of it is in trio.
    "trio_typing": {"TaskStatus": trio.TaskStatus},
    # Colours for tractor's own log, which is silent here.
    "colorlog": {"ColoredFormatter": lambda *_, **__: None},
    # A debugger that is never used here; its release for Python 3.13 breaks that Python's pdb.
    "pdbpp": {"DefaultConfig": object, "Pdb": object},
    # Never used here, and would import all of asyncio, or multiprocessing.
    "tractor.to_asyncio": {"run_as_asyncio_guest": None},
    "tractor._clustering": {"open_actor_cluster": None},
}

# Modules of tractor that have `is_multi_cancelled`, which calls a method of MultiError alone.
PATCHED = ("_exceptions", "_actor", "_debug", "_root", "_supervise")


class EventWithTruth:
    """The `trio.Event` that tractor sets when a child has connected.

    tractor tests its truth, to see whether there is an event; trio's events no longer allow that.
    """

    def __init__(self, event: trio.Event) -> None:
        self.set = event.set
        self.statistics = event.statistics


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Have imports within the block find the stand-ins."""
    stubs = {"trio": _module("trio", {**vars(trio), **TRIO_NAMES})}
    stubs |= {name: _module(name, names) for name, names in MODULES.items()}
    real = {name: sys.modules[name] for name in stubs if name in sys.modules}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]
        sys.modules.update(real)


def _module(name: str, names: Mapping[str, object]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(names)
    return module


def import_tractor() -> ModuleType:
    """Import the tractor that this installation carries, whatever is on the path.

    Raises:
        RuntimeError: It carries none; the message says what to do.
    """
    carried = importlib.util.find_spec(CARRIED)
    spec = carried and PathFinder.find_spec("tractor", carried.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"this installation lacks tractor: {how_to_install()}")
    module = sys.modules["tractor"] = importlib.util.module_from_spec(spec)
    with stand_ins():
        spec.loader.exec_module(module)
    for name in PATCHED:  # stand-ins cannot reach it
        getattr(module, name).is_multi_cancelled = lambda error: (
            split_cancellation(error)[1] is None
        )
    logging.getLogger("tractor").setLevel(QUIET)
    # It formats each message for its silent log, which Python's option -b warns of.
    warnings.filterwarnings("ignore", category=BytesWarning, module=r"tractor\.")
    return module


tractor: Any = import_tractor()
