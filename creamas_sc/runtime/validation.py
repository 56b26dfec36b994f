"""Checks of arguments from users; each error names the argument and what is wrong with it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from creamas_sc.errors import BadValue
from creamas_sc.foreign import shown
from creamas_sc.runtime.paths import intruder_at, others_may_write

T = TypeVar("T")

MAX_INT = 2**53
"""Counts and ages go up to here: floats, and JSON's readers, know every int up to it."""
MAX_SECONDS = 1e9
_SLAVE = re.compile(r"slave-\d+")  # where it saves


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise a TypeError unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOUaeiou" else "a"
        raise TypeError(f"{name} must be {article} {kind.__name__}, not {_described(value)}")


def check_int(name: str, value: Any) -> None:
    """Raise an error unless ``value`` is an int, or an integer of numpy's, up to `MAX_INT`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, not {_described(value)}")
    if not -MAX_INT <= int(value) <= MAX_INT:
        raise BadValue(f"{name} must be at most {MAX_INT:,}, not {shown(value)}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise a BadValue unless ``value`` is an int of at least ``least``, 0 or 1."""
    if type(value) is not int or value < least:
        limit = "above 0" if least else "of at least 0"
        raise BadValue(f"{name} must be an int {limit}, not {shown(value)}")


def make_folder(folder: Any = None) -> str | None:
    """Create a folder to save into, unless it is None; return its absolute path.

    Raises:
        TypeError: ``folder`` is neither a path nor None.
        BadValue: It cannot be created, or another user may have put it there, or put something
            where a slave would save.
    """
    if folder is None:
        return None
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path or None, not {_described(folder)}")
    path = os.fsdecode(os.path.abspath(folder))
    try:
        os.makedirs(path, exist_ok=True)
        planted = next(filter(intruder_at, _folders_within(path)), None)
    except (OSError, ValueError) as error:  # a path with a null character
        is_file = isinstance(error, FileExistsError)
        why = "it is a file" if is_file else getattr(error, "strerror", None) or error
        raise BadValue(f"the folder {folder} cannot be created: {why}") from None
    if planted is not None:
        check_own(planted)
    return path


def check_own(path: str) -> None:
    """Raise a BadValue if another user may have put there what is at ``path``."""
    if (user := intruder_at(path)) is not None:
        raise BadValue(
            f"{path} belongs to the user {user}, who may have put it there: save into a folder of "
            "your own, to which nobody else may write"
        )


def _folders_within(path: str) -> Iterator[str]:
    """A folder, those that it is in, and those of slaves in it if others may put some there."""
    yield from dict.fromkeys(
        str(each)
        for end in map(Path, (path, os.path.realpath(path)))
        for each in [end, *end.parents]
    )
    if others_may_write(path):
        names = sorted(os.listdir(path))
        yield from (os.path.join(path, name) for name in names if _SLAVE.fullmatch(name))


def check_seconds(timeout: Any, name: str = "timeout", *, endless: bool = True) -> None:
    """Raise a BadValue unless ``timeout`` is a number of at least 0, or None if ``endless``.

    Infinity is allowed; finite numbers go up to `MAX_SECONDS`.
    """
    if timeout is None and endless:
        return
    number: Any = timeout  # the type Real has no comparison
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not number >= 0:
        kind = "a number of seconds, at least 0"
        kind = f"{kind}, or None" if endless else kind
        raise BadValue(f"{name} must be {kind}, not {_described(timeout)}")
    if MAX_SECONDS < number != math.inf:
        raise BadValue(f"{name} must be at most {MAX_SECONDS:g} s, not {_described(timeout)}")


def check_place(value: Any, name: str = "addr") -> tuple[str, int]:
    """Return ``value`` as ``(host, port)``; raise a BadValue if it is not that."""
    try:
        host, port = value
    except (TypeError, ValueError):
        host = port = None
    if not isinstance(host, str) or type(port) is not int or not 0 <= port < 1 << 16:
        raise BadValue(f"{name}: {shown(value)} is not an address: expected (host, port)")
    return host, port


def check_places(value: Any) -> list[tuple[str, int]]:
    """Return ``value`` as a list of ``(host, port)``; raise a BadValue if it is not that."""
    return _check_each(value, "slave_addrs", "(host, port)", check_place)


def check_mapping(value: Any, name: str) -> Mapping[str, Any]:
    """Return ``value``, keyword arguments; raise a BadValue if it is not a mapping of such."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise BadValue(f"{name} must be a dict of keyword arguments, not {_described(value)}")
    return value


def check_mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return ``value`` as a list of keyword arguments; raise a BadValue if it is not that."""
    return _check_each(value, "slave_kwargs", "dicts of keyword arguments", check_mapping)


def _check_each(value: Any, name: str, kind: str, check: Callable[[Any, str], T]) -> list[T]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise BadValue(f"{name} must be a list of {kind}, not {_described(value)}")
    return [check(each, name) for each in value]


def _described(value: Any) -> str:
    return "None" if value is None else f"{shown(value)} ({type(value).__name__})"
