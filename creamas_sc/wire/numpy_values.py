"""numpy's arrays and scalars. Imported only once there is one of them: numpy takes long to load."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np

from creamas_sc.errors import DecodeError, EncodeError
from creamas_sc.wire.extensions import ARRAY, SCALAR
from creamas_sc.wire.frames import MAX_PARTS
from creamas_sc.wire.packing import Decoder, EncodeHandler, Encoder, ext

# From this size on an array travels out of band: it would be copied at each level of what holds it.
LARGE_ARRAY_BYTES = 16 * 2**10
MAX_DIMENSIONS = 64  # numpy's own limit
MAX_SIZELESS_ITEMS = 1 << 24


def encoder_of(cls: type) -> EncodeHandler | None:
    """How values of exactly this type are packed; None if it is none of numpy's own."""
    if cls is np.ndarray:
        return _encode_array
    if cls not in np.sctypeDict.values():
        return None
    if issubclass(cls, (np.str_, np.bytes_)):
        return _encode_text
    if issubclass(cls, (np.number, np.bool_)) and not issubclass(cls, np.timedelta64):
        return functools.partial(_encode_number, _describe(np.dtype(cls)))
    return _encode_scalar


def _encode_array(encoder: Encoder, array: np.ndarray[Any, Any]) -> Any:
    """Pack ``[dtype, order, shape, data]``; large data by the number of its part."""
    described = _describe(array.dtype)
    order: Literal["C", "F"] = "F" if array.flags.fnc else "C"
    data: bytes | int
    if array.nbytes < LARGE_ARRAY_BYTES or len(encoder.parts) >= MAX_PARTS:
        data = array.tobytes(order)
    else:
        # The array's own memory, unless it has gaps.
        whole = array.T if order == "F" else np.ascontiguousarray(array)
        data = encoder.add_part(whole.reshape(-1).view(np.uint8).data)
    return ext(ARRAY, encoder.pack([described, order, list(array.shape), data]))


def decode_array(decoder: Decoder, data: bytes) -> np.ndarray[Any, Any]:
    """The array, writable; one that came as a part is built upon the part, without a copy."""
    described, order, shape, content = decoder.unpack_list(data, 4)
    dtype = _dtype(described)
    # The product of many large numbers would take for ever, and a copy of many items of no size.
    if (
        len(shape) > MAX_DIMENSIONS
        or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
        or (dtype.itemsize == 0 and math.prod(shape) > MAX_SIZELESS_ITEMS)
    ):
        raise DecodeError("an array of no possible shape")
    in_part = type(content) is int
    buffer = decoder.part(content) if in_part else content
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise DecodeError("an array's data does not fit its shape")
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, buffer, order=order)
    # Only a bytearray is not shared: parts that never left this process are views.
    return array if type(buffer) is bytearray else array.copy(order)


def _encode_number(described: Any, encoder: Encoder, value: np.generic) -> Any:
    return ext(SCALAR, encoder.pack([described, value.tobytes()]))


def _encode_scalar(encoder: Encoder, value: np.generic) -> Any:
    return _encode_number(_describe(value.dtype), encoder, value)


def _encode_text(encoder: Encoder, value: np.str_ | np.bytes_) -> Any:
    # Sliced to be a plain str or bytes: numpy's other ways drop trailing zeros.
    return ext(SCALAR, encoder.pack([None, value[:]]))


def decode_scalar(decoder: Decoder, data: bytes) -> Any:
    """The scalar, of the type that was encoded."""
    described, content = decoder.unpack_list(data, 2)
    if described is None:
        if type(content) not in (str, bytes):  # of a number, numpy makes so many zeros
            raise DecodeError("a text is no text")
        return np.str_(content) if type(content) is str else np.bytes_(content)
    dtype = _dtype(described)
    if dtype.itemsize != len(content):
        raise DecodeError("a scalar's data does not fit its type")
    # A copy, because a structured scalar is a writable view of what it is taken from.
    scalar: Any = np.ndarray((), dtype, bytearray(content))[()]
    return scalar


def _describe(dtype: np.dtype[Any]) -> Any:
    """A plain type by a string; ``[base, shape]``; ``[fields, itemsize, aligned]``."""
    if dtype.hasobject:
        raise EncodeError("holds Python objects: use a list", type_name=f"array of {dtype}")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_describe(base), list(shape)]
    if dtype.names is not None and dtype.fields is not None and dtype.type is np.void:
        fields = [[name, *_field(*dtype.fields[name])] for name in dtype.names]
        return [fields, dtype.itemsize, dtype.isalignedstruct]
    text = dtype.str
    if np.dtype(text).char != dtype.char:
        text = text[0] + dtype.char  # two C types of one size: long and long long
    if np.dtype(text) != dtype or np.dtype(text).type is not dtype.type:
        raise EncodeError("is not one of numpy's own types", type_name=f"array of {dtype}")
    return text


def _field(dtype: np.dtype[Any], offset: int, title: Any = None) -> list[Any]:
    return [_describe(dtype), offset, title]


def _dtype(described: Any) -> np.dtype[Any]:
    if type(described) is str:
        return _plain_dtype(described)
    if len(described) == 2:
        base, shape = described
        return np.dtype((_dtype(base), tuple(shape)))
    fields, itemsize, aligned = described
    names, formats, offsets, titles = zip(*fields, strict=True) if fields else ((), (), (), ())
    structured: np.dtype[Any] = np.dtype(
        {
            "names": list(names),
            "formats": [_dtype(each) for each in formats],
            "offsets": list(offsets),
            "itemsize": itemsize,
            "titles": list(titles),
            "aligned": aligned,
        }
    )
    return structured


@functools.lru_cache(maxsize=256)
def _plain_dtype(text: str) -> np.dtype[Any]:
    dtype = np.dtype(text)
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise DecodeError(f"{text!r} is not a plain numpy type")
    return dtype
