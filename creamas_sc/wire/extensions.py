"""Values of the standard library that msgpack does not know: how each is packed.

The numbers are the protocol's: a number is never used again for something else.
"""

from __future__ import annotations

import datetime
import functools
import struct
from typing import Any, Final

from creamas_sc.errors import EncodeError, LoadError
from creamas_sc.runtime.class_loading import load_class, portable_name
from creamas_sc.wire.packing import BYTES_PART, DecodeHandler, Decoder, EncodeHandler, Encoder, ext

__all__ = [
    "ARRAY",
    "DECODERS",
    "ENCODERS",
    "LATE_ENCODERS",
    "OBJECT",
    "REFERENCE",
    "SCALAR",
    "SERIALIZED",
    "encode_type",
    "travel_name",
]

TUPLE: Final = 0
INT: Final = 1
SET: Final = 2
FROZENSET: Final = 3
COMPLEX: Final = 4
DATETIME: Final = 5
DATE: Final = 6
TIME: Final = 7
TIMEDELTA: Final = 8
TIMEZONE: Final = 9
ZONE_INFO: Final = 10
DECIMAL: Final = 11
UUID_: Final = 12
TYPE: Final = 13
SERIALIZED: Final = 14
OBJECT: Final = 15
REFERENCE: Final = 16
ARRAY: Final = 17
SCALAR: Final = 18

_EMPTY_TUPLE: Final = ext(TUPLE, b"")
_COMPLEX: Final = struct.Struct("!dd")


def _encode_tuple(encoder: Encoder, value: tuple[Any, ...]) -> Any:
    return ext(TUPLE, encoder.pack(list(value))) if value else _EMPTY_TUPLE


def _decode_tuple(decoder: Decoder, data: bytes) -> tuple[Any, ...]:
    return tuple(decoder.unpack_list(data)) if data else ()


def _encode_int(encoder: Encoder, value: int) -> Any:
    # Reached past 64 bits only.
    return ext(INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _decode_int(decoder: Decoder, data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _encode_set(encoder: Encoder, value: set[Any]) -> Any:
    return ext(SET, encoder.pack(list(value)))


def _decode_set(decoder: Decoder, data: bytes) -> set[Any]:
    return set(decoder.unpack_list(data))


def _encode_frozenset(encoder: Encoder, value: frozenset[Any]) -> Any:
    return ext(FROZENSET, encoder.pack(list(value)))


def _decode_frozenset(decoder: Decoder, data: bytes) -> frozenset[Any]:
    return frozenset(decoder.unpack_list(data))


def _encode_complex(encoder: Encoder, value: complex) -> Any:
    return ext(COMPLEX, _COMPLEX.pack(value.real, value.imag))


def _decode_complex(decoder: Decoder, data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _encode_datetime(encoder: Encoder, value: datetime.datetime) -> Any:
    fields = [value.year, value.month, value.day, value.hour, value.minute, value.second]
    return ext(DATETIME, encoder.pack([*fields, value.microsecond, value.tzinfo, value.fold]))


def _decode_datetime(decoder: Decoder, data: bytes) -> datetime.datetime:
    *fields, fold = decoder.unpack_list(data, 9)
    return datetime.datetime(*fields, fold=fold)


def _encode_date(encoder: Encoder, value: datetime.date) -> Any:
    return ext(DATE, encoder.pack([value.year, value.month, value.day]))


def _decode_date(decoder: Decoder, data: bytes) -> datetime.date:
    return datetime.date(*decoder.unpack_list(data, 3))


def _encode_time(encoder: Encoder, value: datetime.time) -> Any:
    fields = [value.hour, value.minute, value.second, value.microsecond]
    return ext(TIME, encoder.pack([*fields, value.tzinfo, value.fold]))


def _decode_time(decoder: Decoder, data: bytes) -> datetime.time:
    *fields, fold = decoder.unpack_list(data, 6)
    return datetime.time(*fields, fold=fold)


def _encode_timedelta(encoder: Encoder, value: datetime.timedelta) -> Any:
    return ext(TIMEDELTA, encoder.pack([value.days, value.seconds, value.microseconds]))


def _decode_timedelta(decoder: Decoder, data: bytes) -> datetime.timedelta:
    return datetime.timedelta(*decoder.unpack_list(data, 3))


def _encode_timezone(encoder: Encoder, value: datetime.timezone) -> Any:
    # The arguments that made it: a name that was not given is computed, and must not become one.
    arguments = value.__getinitargs__()  # type: ignore[attr-defined]
    return ext(TIMEZONE, encoder.pack(list(arguments)))


def _decode_timezone(decoder: Decoder, data: bytes) -> datetime.timezone:
    return datetime.timezone(*decoder.unpack_list(data))


def _encode_zone_info(encoder: Encoder, value: Any) -> Any:
    """Pack a ``zoneinfo.ZoneInfo`` by its key."""
    if value.key is None:
        raise EncodeError("a zone read from a file has no name to travel by")
    return ext(ZONE_INFO, value.key.encode())


def _decode_zone_info(decoder: Decoder, data: bytes) -> Any:
    import zoneinfo

    return zoneinfo.ZoneInfo(data.decode())


def _encode_decimal(encoder: Encoder, value: Any) -> Any:
    return ext(DECIMAL, str(value).encode())


def _decode_decimal(decoder: Decoder, data: bytes) -> Any:
    import decimal

    return decimal.Decimal(data.decode())


def _encode_uuid(encoder: Encoder, value: Any) -> Any:
    return ext(UUID_, value.bytes)


def _decode_uuid(decoder: Decoder, data: bytes) -> Any:
    import uuid

    return uuid.UUID(bytes=data)


@functools.lru_cache(maxsize=1024)
def travel_name(cls: type) -> str:
    """The name under which other processes find ``cls``.

    Raises:
        LoadError: They would not find it, or something else.
    """
    name = portable_name(cls)
    if load_class(name) is not cls:
        raise LoadError(f"{name!r} names another class")
    return name


def encode_type(encoder: Encoder, value: type) -> Any:
    """Pack a class by its name."""
    return ext(TYPE, travel_name(value).encode())


def _decode_type(decoder: Decoder, data: bytes) -> type:
    return load_class(data.decode())


def _decode_bytes_part(decoder: Decoder, data: bytes) -> bytes:
    return bytes(decoder.part(int.from_bytes(data, "big")))


ENCODERS: Final[dict[type, EncodeHandler]] = {
    tuple: _encode_tuple,
    int: _encode_int,
    set: _encode_set,
    frozenset: _encode_frozenset,
    complex: _encode_complex,
    datetime.datetime: _encode_datetime,
    datetime.date: _encode_date,
    datetime.time: _encode_time,
    datetime.timedelta: _encode_timedelta,
    datetime.timezone: _encode_timezone,
    type: encode_type,
}
# By module and name, as few values need these modules, and every process would pay.
LATE_ENCODERS: Final[dict[tuple[str, str], EncodeHandler]] = {
    ("decimal", "Decimal"): _encode_decimal,
    ("uuid", "UUID"): _encode_uuid,
    ("zoneinfo", "ZoneInfo"): _encode_zone_info,
}
DECODERS: Final[dict[int, DecodeHandler]] = {
    TUPLE: _decode_tuple,
    INT: _decode_int,
    SET: _decode_set,
    FROZENSET: _decode_frozenset,
    COMPLEX: _decode_complex,
    DATETIME: _decode_datetime,
    DATE: _decode_date,
    TIME: _decode_time,
    TIMEDELTA: _decode_timedelta,
    TIMEZONE: _decode_timezone,
    ZONE_INFO: _decode_zone_info,
    DECIMAL: _decode_decimal,
    UUID_: _decode_uuid,
    TYPE: _decode_type,
    BYTES_PART: _decode_bytes_part,
}
