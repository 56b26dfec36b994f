"""Values of the standard library that msgpack does not know: how each is packed.

The numbers are the protocol's: a number is never used again for something else.
"""

from __future__ import annotations

import datetime
import functools
import struct
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any, Final

from creamas_sc.errors import EncodeError, LoadError
from creamas_sc.runtime.class_loading import load_class, load_object, portable_name
from creamas_sc.wire.packing import BYTES_PART, DecodeHandler, Decoder, EncodeHandler, Encoder, ext

TUPLE, INT, SET, FROZENSET, COMPLEX = range(5)
DATETIME, DATE, TIME, TIMEDELTA, TIMEZONE, ZONE_INFO = range(5, 11)
DECIMAL, UUID_, TYPE, SERIALIZED, OBJECT, REFERENCE = range(11, 17)
ARRAY, SCALAR = range(17, 19)  # 19 and 20 are in `packing`
ENUM, NAMED_TUPLE, DATACLASS, FUNCTION = range(21, 25)

# Their values' hashes are made of those of numbers, so who sends them can choose them.
HASHED: Final = frozenset(
    {TUPLE, INT, FROZENSET, COMPLEX, DATETIME, TIMEDELTA, TIMEZONE, DECIMAL, UUID_, SCALAR}
    | {ENUM, NAMED_TUPLE, DATACLASS}
)
_EMPTY_TUPLE: Final = ext(TUPLE, b"")
_COMPLEX: Final = struct.Struct("!dd")


def _packing(code: int, fields: Callable[[Any], list[Any]]) -> EncodeHandler:
    """Encode values of a type as the list of their fields."""

    def encode(encoder: Encoder, value: Any) -> Any:
        return ext(code, encoder.pack(fields(value)))

    return encode


def _unpacking(make: Callable[..., Any], count: int | None = None) -> DecodeHandler:
    """Decode values that were encoded by `_packing`; ``make`` takes ``count`` fields."""

    def decode(decoder: Decoder, data: bytes) -> Any:
        return make(*decoder.unpack_list(data, count))

    return decode


def _encode_tuple(encoder: Encoder, value: tuple[Any, ...]) -> Any:
    return ext(TUPLE, encoder.pack(list(value))) if value else _EMPTY_TUPLE


def _time_fields(value: Any) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, value.tzinfo, value.fold]


def _unpacking_time(cls: type, count: int) -> DecodeHandler:
    return _unpacking(lambda *fields: cls(*fields[:-1], fold=fields[-1]), count)


def _encode_zone_info(encoder: Encoder, value: Any) -> Any:
    """Pack a ``zoneinfo.ZoneInfo`` by its key."""
    if value.key is None:
        raise EncodeError("a zone read from a file has no name to travel by")
    return ext(ZONE_INFO, value.key.encode())


@functools.lru_cache(maxsize=1024)
def travel_name(found: type | FunctionType) -> str:
    """The name under which other processes find a class or function.

    Raises:
        LoadError: They would not find it, or something else.
    """
    name = portable_name(found)
    if load_object(name) is not found:
        what = "class" if isinstance(found, type) else "function"
        raise LoadError(f"{name!r} names another {what}")
    return name


def encode_type(encoder: Encoder, value: type) -> Any:
    """Pack a class by its name."""
    return ext(TYPE, travel_name(value).encode())


def encode_function(encoder: Encoder, value: FunctionType) -> Any:
    """Pack a function of a module by its name."""
    return ext(FUNCTION, travel_name(value).encode())


ENCODERS: Final[dict[type, EncodeHandler]] = {
    tuple: _encode_tuple,
    # Reached past 64 bits only.
    int: lambda _, value: ext(INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)),
    set: _packing(SET, list),
    frozenset: _packing(FROZENSET, list),
    complex: lambda _, value: ext(COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    datetime.datetime: _packing(
        DATETIME, lambda value: [value.year, value.month, value.day, *_time_fields(value)]
    ),
    datetime.date: _packing(DATE, lambda value: [value.year, value.month, value.day]),
    datetime.time: _packing(TIME, _time_fields),
    datetime.timedelta: _packing(
        TIMEDELTA, lambda value: [value.days, value.seconds, value.microseconds]
    ),
    # The arguments that made it: a name that was not given is computed, and must not become one.
    datetime.timezone: _packing(TIMEZONE, lambda value: list(value.__getinitargs__())),
    type: encode_type,
    FunctionType: encode_function,
}
# By module and name, as few values need these modules, and every process would pay.
LATE_ENCODERS: Final[dict[tuple[str, str], EncodeHandler]] = {
    ("decimal", "Decimal"): lambda _, value: ext(DECIMAL, str(value).encode()),
    ("uuid", "UUID"): lambda _, value: ext(UUID_, value.bytes),
    ("zoneinfo", "ZoneInfo"): _encode_zone_info,
}
DECODERS: Final[dict[int, DecodeHandler]] = {
    TUPLE: lambda decoder, data: tuple(decoder.unpack_list(data)) if data else (),
    INT: lambda _, data: int.from_bytes(data, "big", signed=True),
    SET: lambda decoder, data: set(decoder.unpack_list(data)),
    FROZENSET: lambda decoder, data: frozenset(decoder.unpack_list(data)),
    COMPLEX: lambda _, data: complex(*_COMPLEX.unpack(data)),
    DATETIME: _unpacking_time(datetime.datetime, 9),
    DATE: _unpacking(datetime.date, 3),
    TIME: _unpacking_time(datetime.time, 6),
    TIMEDELTA: _unpacking(datetime.timedelta, 3),
    TIMEZONE: _unpacking(datetime.timezone),
    ZONE_INFO: lambda _, data: import_module("zoneinfo").ZoneInfo(data.decode()),
    DECIMAL: lambda _, data: import_module("decimal").Decimal(data.decode()),
    UUID_: lambda _, data: import_module("uuid").UUID(bytes=data),
    TYPE: lambda _, data: load_class(data.decode()),
    BYTES_PART: lambda decoder, data: bytes(decoder.part(int.from_bytes(data, "big"))),
}
