"""HTML for notebooks: tables, and arrays of pixels as pictures. All text is escaped."""

from __future__ import annotations

import base64
import struct
import sys
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from creamas_sc.foreign import shown

# Larger pictures are shown with fewer pixels.
MAX_SIDE: Final = 512
# Smaller arrays are tables of numbers rather than pictures.
MIN_SIDE: Final = 8
_CHANNELS: Final = {1: 0, 3: 2, 4: 6}  # channels -> PNG's colour type


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A table; a cell is a picture if its value is one, else text.

    Args:
        note: A line below.
    """
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    below = f"<div>{escape(note)}</div>" if note else ""
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>{below}"


def cell(value: Any) -> str:
    """A value as HTML."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return picture(value) or escape("" if value is None else shown(value))


def picture(value: Any) -> str | None:
    """A picture: of an array of pixels, or what shows itself as a PNG; None for anything else.

    An array has the shape (height, width), or (height, width, 3 or 4), and holds uint8, bool, or
    floats from 0 to 1.
    """
    data: Any = None
    numpy = sys.modules.get("numpy")  # an array can only exist where it has been imported
    if numpy is not None and isinstance(value, numpy.ndarray):
        data = _png_of_array(numpy, value)
    elif (own := getattr(type(value), "_repr_png_", None)) is not None:
        data = own(value)
    if not isinstance(data, bytes):
        return None
    return f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _png_of_array(numpy: Any, array: Any) -> bytes | None:
    shape = array.shape
    if len(shape) not in (2, 3) or min(shape[:2]) < MIN_SIDE or (*shape, 1)[2] not in _CHANNELS:
        return None
    step = -(-max(shape[:2]) // MAX_SIDE)
    array = array[::step, ::step]
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            return None
        array = array * 255
    elif array.dtype.kind == "b":
        array = array * numpy.uint8(255)
    elif array.dtype != numpy.uint8:
        return None
    height, width = array.shape[:2]
    return png(array.astype(numpy.uint8).tobytes(), width, height, (*shape, 1)[2])


def png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """A PNG file of pixels, 8 bits a channel: grey, RGB or RGBA.

    Source: https://www.w3.org/TR/png-3/
    """
    stride = width * channels
    lines = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, height * stride, stride))
    header = struct.pack("!IIBBBBB", width, height, 8, _CHANNELS[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))
        for kind, data in parts
    )
