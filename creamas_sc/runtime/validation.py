"""Checks of arguments that come from users, each named in the error of one that will not do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from creamas_sc.errors import BadValue

__all__ = [
    "check_folder",
    "check_int",
    "check_kind",
    "check_mapping",
    "check_mappings",
    "check_place",
    "check_places",
    "check_seconds",
    "check_text",
]


def check_kind(name: str, value: Any, kind: type) -> None:
    """Refuse what is no ``kind``, with a TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of {kind.__name__}, not {value!r}")


def check_text(name: str, value: Any) -> None:
    """Refuse what is no str, with a TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")


def check_int(name: str, value: Any) -> None:
    """Refuse what is no int, numpy's included, with a TypeError."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, not {value!r}")


def check_folder(value: Any, name: str = "folder") -> None:
    """Refuse what names no folder and is not None, with a TypeError."""
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, or None, not {value!r}")


def check_seconds(timeout: Any, name: str = "timeout", *, endless: bool = True) -> None:
    """Refuse what is no number of seconds, nor None if ``endless``.

    Raises:
        BadValue: It is not.
    """
    if timeout is None and endless:
        return
    number: Any = timeout  # a Real can be compared, which its type does not tell
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not number >= 0:
        none = ", or None" if endless else ""
        raise BadValue(f"{name} must be seconds of at least 0{none}, not {timeout!r}")


def check_place(value: Any, name: str = "addr") -> tuple[str, int]:
    """``(host, port)`` to listen on.

    Raises:
        BadValue: It is not.
    """
    try:
        host, port = value
    except (TypeError, ValueError):
        host = port = None
    if not isinstance(host, str) or type(port) is not int or not 0 <= port < 1 << 16:
        raise BadValue(f"{name}: {value!r} is no address: expected (host, port)")
    return host, port


def check_places(value: Any, name: str = "slave_addrs") -> list[tuple[str, int]]:
    """``(host, port)`` of several.

    Raises:
        BadValue: They are not.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise BadValue(f"{name} must be a list of (host, port), not {value!r}")
    return [check_place(each, name) for each in value]


def check_mapping(value: Any, name: str) -> Mapping[str, Any]:
    """Keyword arguments.

    Raises:
        BadValue: They are not.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise BadValue(f"{name} must be a dict of keyword arguments, not {value!r}")
    return value


def check_mappings(value: Any, name: str = "slave_kwargs") -> list[Mapping[str, Any]]:
    """Keyword arguments of several.

    Raises:
        BadValue: They are not.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise BadValue(f"{name} must be a list of dicts of keyword arguments, not {value!r}")
    return [check_mapping(each, name) for each in value]
