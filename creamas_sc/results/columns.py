"""Columns of scalars as bytes: what agents are observed to be, on its way and in the record.

A column of one type is packed as an array of it; any other is JSON::

    "d"     floats, 8 bytes each, little-endian        "?"     bools, a byte each
    "q"     ints, 8 bytes each, little-endian          "json"  a list of int, float, str, bool, None
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from creamas_sc.foreign import shown

Scalar: TypeAlias = int | float | str | bool | None

SCALARS: Final = frozenset({int, float, str, bool, type(None)})
JSON: Final = "json"
_ARRAYS: Final = {float: "d", int: "q"}
_BOOLS: Final = "?"


class Column(NamedTuple):
    """Packed values.

    Attributes:
        form: How they are packed: "d", "q", "?" or "json".
    """

    form: str
    data: bytes | bytearray


def scalar(value: Any) -> Scalar:
    """Return a value as a plain scalar; numpy's become Python's.

    Raises:
        TypeError: It is something else.
    """
    if type(value) in SCALARS:
        return value  # type: ignore[no-any-return]
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "shape", None) == ():
        value = item()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"must be an int, float, str, bool or None, not {type(value).__name__}")


def pack(values: Sequence[Scalar]) -> Column:
    """Pack plain scalars.

    Raises:
        TypeError: Some are something else; see `scalar`.
    """
    kinds = set(map(type, values))
    if not kinds <= SCALARS:
        raise TypeError("these are not all plain scalars")
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is bool:
        return Column(_BOOLS, bytes(values))  # type: ignore[arg-type]
    if kind in _ARRAYS:
        try:
            return Column(_ARRAYS[kind], _little_endian(array(_ARRAYS[kind], values)).tobytes())
        except OverflowError:  # an int of more than 8 bytes
            pass
    return Column(JSON, json.dumps(list(values), separators=(",", ":")).encode())


def unpack(column: Column) -> Sequence[Any]:
    """The values that were packed: an `array.array` or a list."""
    form, data = column
    if form == JSON:
        return json.loads(data)  # type: ignore[no-any-return]
    if form == _BOOLS:
        return list(map(bool, data))
    values = array(form)
    values.frombytes(data)
    return _little_endian(values)


def join(columns: Sequence[Column], order: Sequence[int] | None = None) -> Column:
    """Join columns one after the other.

    Args:
        order: Which value comes first, second ... of those that are joined; None if they stay in
            their order.
    """
    if len({form for form, _ in columns}) == 1 and columns[0].form != JSON:
        joined = Column(columns[0].form, b"".join(data for _, data in columns))
        if order is None:
            return joined
        values: Sequence[Any] = unpack(joined)
    else:
        values = [value for column in columns for value in unpack(column)]
    return pack(values if order is None else [values[at] for at in order])


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what it has no form for becomes a shortened ``repr``."""
    try:
        return scalar(value)
    except TypeError:
        pass
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value), key=repr)
    if (to_list := getattr(value, "tolist", None)) is not None and hasattr(value, "shape"):
        return plain(to_list())
    return shown(value)


def to_json(value: Any) -> str:
    """A value as JSON text; see `plain`."""
    return json.dumps(plain(value), separators=(",", ":"))


def _little_endian(values: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
