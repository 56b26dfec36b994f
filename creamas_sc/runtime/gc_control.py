"""The collector of cyclic garbage, and when it is in the way."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import IOBase
from typing import Any

__all__ = ["gc_paused", "only_imports"]

_DATA = (list, dict, set, frozenset, tuple, IOBase)


@contextmanager
def gc_paused() -> Iterator[None]:
    """No collection within the block: for code that makes many objects, none of them garbage.

    To look through them again and again, as they become more, takes longer than to make them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def only_imports(namespace: Mapping[str, Any]) -> bool:
    """Whether a module has done no more yet than import, define, and name numbers and strings."""
    return not any(
        isinstance(value, _DATA) or _package(type(value)) not in sys.stdlib_module_names
        for name, value in namespace.items()
        if not name.startswith("__") and not isinstance(value, type) and gc.is_tracked(value)
    )


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]
