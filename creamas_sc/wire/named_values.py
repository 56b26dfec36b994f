"""Values of users' classes that travel by name, without registration; and functions.

An object of a dataclass goes as its class's name and its fields, a member of an Enum and a
NamedTuple likewise, a function as its name. What besides fields a dataclass's object has, it gets
from its ``__post_init__`` again.

A name that arrives may lead to anything that can be imported. So it is checked that it leads to a
dataclass, Enum, NamedTuple or plain function, and that the fields are the class's. No class is
called: the objects are made without ``__init__`` and get their fields.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from enum import Enum, Flag
from types import FunctionType
from typing import Any, Final

from creamas_sc.errors import DecodeError, EncodeError
from creamas_sc.foreign import summary_of
from creamas_sc.runtime.class_loading import load_class, load_object
from creamas_sc.wire.extensions import DATACLASS, ENUM, FUNCTION, NAMED_TUPLE, travel_name
from creamas_sc.wire.packing import DecodeHandler, Decoder, EncodeHandler, Encoder, ext

_MEMBER = "it is not a member that its class has by name"


def encoder_of(cls: Any) -> EncodeHandler | None:
    """How values of exactly this class are packed; None if it is none of these.

    Raises:
        LoadError: Other processes would not find the class by its name.
    """
    if issubclass(cls, Enum):
        return functools.partial(_encode_member, travel_name(cls))
    if is_named_tuple(cls):
        return functools.partial(_encode_named_tuple, travel_name(cls))
    if is_plain_dataclass(cls):
        return functools.partial(_encode_fields, travel_name(cls), _field_names(cls))
    return None


def is_named_tuple(cls: Any) -> bool:
    """Whether a class is a NamedTuple."""
    # Of other classes nothing is asked: a metaclass may run any code.
    return issubclass(cls, tuple) and type(getattr(cls, "_fields", None)) is tuple


def is_plain_dataclass(cls: Any) -> bool:
    """Whether objects of a class are no more than their fields.

    Its subclasses may be more, unless they are dataclasses, too.
    """
    return "__dataclass_fields__" in vars(cls) and cls.__new__ is object.__new__


def _field_names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


# ---- Enums


def _encode_member(class_name: str, encoder: Encoder, member: Enum) -> Any:
    content: Any = member._name_
    if isinstance(member, Flag):  # several members at once are one value, without a name
        content = member._value_
    elif type(member).__members__.get(content) is not member:
        raise EncodeError(_MEMBER)
    return ext(ENUM, encoder.pack([class_name, content]))


def _decode_member(decoder: Decoder, data: bytes) -> Enum:
    name, content = decoder.unpack_list(data, 2)
    cls = _enum(name)
    if type(content) is int and issubclass(cls, Flag):
        flags: Flag = cls(content)
        return flags
    member: Enum | None = cls.__members__.get(content) if type(content) is str else None
    if member is None:
        raise DecodeError(f"the Enum {name!r} has no member {content!r:.100}")
    return member


@functools.lru_cache(maxsize=1024)  # a look at a name takes as long as all the rest
def _enum(name: str) -> Any:
    cls = load_class(name)
    if not issubclass(cls, Enum):
        raise DecodeError(f"{name!r} is no Enum")
    return cls


# ---- NamedTuples


def _encode_named_tuple(class_name: str, encoder: Encoder, value: Any) -> Any:
    if getattr(value, "__dict__", None) or len(value) != len(value._fields):
        raise EncodeError("it has more than its fields")
    return ext(NAMED_TUPLE, encoder.pack([class_name, *value]))


def _decode_named_tuple(decoder: Decoder, data: bytes) -> Any:
    name, *items = decoder.unpack_list(data)
    cls = _named_tuple(name)
    if len(items) != len(cls._fields):
        raise DecodeError(f"the NamedTuple {name!r} has not {len(items)} fields")
    return tuple.__new__(cls, items)


@functools.lru_cache(maxsize=1024)
def _named_tuple(name: str) -> Any:
    cls = load_class(name)
    if not is_named_tuple(cls):
        raise DecodeError(f"{name!r} is no NamedTuple")
    return cls


# ---- dataclasses


def _encode_fields(class_name: str, names: tuple[str, ...], encoder: Encoder, value: Any) -> Any:
    fields = {name: getattr(value, name) for name in names}
    return ext(DATACLASS, encoder.pack([class_name, encoder.compact(fields)]))


def _decode_fields(decoder: Decoder, data: bytes) -> Any:
    name, fields = decoder.unpack_list(data, 2)
    cls, names, derives = _dataclass(name)
    if type(fields) is not dict or fields.keys() != names:
        raise DecodeError(f"the dataclass {name!r} has other fields than those that came")
    made = object.__new__(cls)
    _set_fields(made, fields)
    if derives:
        try:
            made.__post_init__()
        except Exception as error:
            raise DecodeError(f"{name}.__post_init__ failed: {summary_of(error)}") from error
        _set_fields(made, fields)  # it may have changed them again
    return made


def _set_fields(made: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        object.__setattr__(made, name, value)  # frozen ones, too


@functools.lru_cache(maxsize=1024)
def _dataclass(name: str) -> tuple[Any, frozenset[str], bool]:
    """The class of that name, its fields, and whether ``__post_init__`` can be called."""
    cls: Any = load_class(name)
    if not is_plain_dataclass(cls):
        raise DecodeError(f"{name!r} is no dataclass")
    derives = hasattr(cls, "__post_init__")
    if derives:
        try:
            inspect.signature(cls.__post_init__).bind(None)
        except TypeError:  # it needs InitVars, which are gone
            derives = False
    return cls, frozenset(_field_names(cls)), derives


# ---- functions


def _decode_function(_: Decoder, data: bytes) -> FunctionType:
    found = load_object(name := data.decode())
    if type(found) is not FunctionType:
        raise DecodeError(f"{name!r} is no function but of type {type(found).__name__}")
    return found


DECODERS: Final[dict[int, DecodeHandler]] = {
    ENUM: _decode_member,
    NAMED_TUPLE: _decode_named_tuple,
    DATACLASS: _decode_fields,
    FUNCTION: _decode_function,
}
