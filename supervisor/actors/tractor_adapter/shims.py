"""What tractor 0.1.0a5 needs, and today's trio and Python do not have in the form it knows.

tractor was written in 2022, for trio 0.20. While it is imported, stand-ins lie in `sys.modules`
under the names below; it keeps them, and nobody else ever sees them. No file of tractor's is
changed. Each stand-in has its reason beside it, and a test that fails once tractor does without it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import tricycle  # noqa: F401 - tractor uses it, and it is to have trio as it is
import trio

from creamas_sc.runtime.nurseries import open_unwrapping_nursery, split_cancellation

__all__ = ["EventWithTruth", "patch", "stand_ins"]

TRIO_NAMES: Mapping[str, object] = {
    # trio raises Python's own groups by now, which serve in its place in an `except`.
    "MultiError": BaseExceptionGroup,
    # trio's own wraps a single error in a group by now; tractor catches errors by their type.
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
    # A debugger that is never used here. Its release for Python 3.13 breaks the pdb of that Python.
    "pdbpp": {"DefaultConfig": object, "Pdb": object},
    # Never used here, and would import all of asyncio.
    "tractor.to_asyncio": {"run_as_asyncio_guest": None},
}

# Modules of tractor that have `is_multi_cancelled`, which calls a method of MultiError alone.
PATCHED = ("_exceptions", "_actor", "_debug", "_root", "_supervise")


class EventWithTruth:
    """A `trio.Event` as tractor uses the one that it is to set when a child has connected.

    tractor asks for its truth, to see whether there is one; trio's events no longer have any.
    """

    def __init__(self, event: trio.Event) -> None:
        self.set = event.set
        self.statistics = event.statistics


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Have imports within the block find the stand-ins, and nothing after it."""
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


def patch(tractor: Any) -> None:
    """Replace what the stand-ins cannot."""
    for module in PATCHED:
        getattr(tractor, module).is_multi_cancelled = _is_cancellation


def _is_cancellation(error: BaseException) -> bool:
    return split_cancellation(error)[1] is None


def _module(name: str, names: Mapping[str, object]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(names)
    return module
