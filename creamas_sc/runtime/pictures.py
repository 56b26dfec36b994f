"""How values look: arrays of pixels, and what shows itself as a picture, SVG or HTML.

A `Look` of pixels becomes a PNG in the process that shows it: that takes long, and a simulation
that is only asked how an artifact looks should not wait for it.
"""

from __future__ import annotations

import logging
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from creamas_sc.foreign import is_ctrl_c

log = logging.getLogger(__name__)

# Larger pictures are shown with fewer pixels.
MAX_SIDE: Final = 512
# Smaller arrays are tables of numbers rather than pictures.
MIN_SIDE: Final = 8
# What is larger is not shown.
MAX_BYTES: Final = 2 << 20

PIXELS: Final = "pixels"
PNG: Final = "image/png"
SVG: Final = "image/svg+xml"
HTML: Final = "text/html"

_COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}  # channels -> PNG's colour type
_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)
# What may come before the first element of a file of SVG or HTML, and its end.
_BEFORE: Final = (("<?xml", "?>"), ("<!--", "-->"), ("<!doctype svg", ">"))
_BEGIN_LENGTH: Final = 2000


class Look(NamedTuple):
    """How a value looks.

    Attributes:
        kind: A media type, or `PIXELS`: 8 bits a channel, row by row, of the sizes that follow.
    """

    kind: str
    data: bytes
    width: int = 0
    height: int = 0
    channels: int = 0

    @property
    def media_type(self) -> str:
        """Of the file that shows it."""
        return PNG if self.kind == PIXELS else self.kind

    def as_file(self) -> tuple[str, bytes]:
        """Media type and contents of a file that shows it."""
        if self.kind != PIXELS:
            return self.kind, self.data
        return PNG, png(self.data, self.width, self.height, self.channels)


def look(value: Any, side: int = MAX_SIDE) -> Look | None:
    """How a value looks; None if there is nothing to see, or too much.

    An array has the shape (height, width), or (height, width, 3 or 4), and holds uint8, bool, or
    floats from 0 to 1. Others show themselves by ``_repr_png_``, ``_repr_svg_`` or
    ``_repr_html_``, as in notebooks. Text may be SVG or HTML, bytes a PNG, JPEG or GIF file.

    Args:
        side: Of an array, the most pixels in a row or column.
    """
    return _guarded(value, lambda: pixels(value, side) or _file(value) or _own(value))


def own_look(value: Any) -> Look | None:
    """How a value shows itself as a picture, by ``_repr_png_`` or ``_repr_svg_`` only."""
    return _guarded(value, lambda: _own_picture(value))


def _guarded(value: Any, find: Callable[[], Look | None]) -> Look | None:
    try:
        found = find()
    except BaseException as error:  # user code may raise anything, SystemExit included
        if is_ctrl_c(error):
            raise
        log.debug("a value of %s does not show itself", type(value).__name__, exc_info=True)
        return None
    return None if found is None or len(found.data) > MAX_BYTES else found


def pixels(value: Any, side: int = MAX_SIDE) -> Look | None:
    """An array as pixels; None for anything else."""
    numpy = sys.modules.get("numpy")  # an array can only exist where it has been imported
    if numpy is None or not isinstance(value, numpy.ndarray):
        return None
    array, shape = value, value.shape
    if len(shape) not in (2, 3) or min(shape[:2]) < MIN_SIDE or (*shape, 1)[2] not in _COLOUR_TYPES:
        return None
    step = -(-max(shape[:2]) // side)
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
    data = array.astype(numpy.uint8).tobytes()
    return Look(PIXELS, data, width, height, (*shape, 1)[2])


def _own_picture(value: Any) -> Look | None:
    kind = type(value)
    if (own := getattr(kind, "_repr_png_", None)) is not None:
        data = own(value)
        if isinstance(data, bytes):
            return Look(PNG, data)
    if (own := getattr(kind, "_repr_svg_", None)) is not None:
        text = own(value)
        if isinstance(text, str):
            return Look(SVG, text.encode())
    return None


def _own(value: Any) -> Look | None:
    found = _own_picture(value)
    if found is None and (own := getattr(type(value), "_repr_html_", None)) is not None:
        text = own(value)
        if isinstance(text, str):
            return Look(HTML, text.encode())
    return found


def _file(value: Any) -> Look | None:
    """Text or bytes that are the contents of a file which browsers show."""
    if isinstance(value, str) and (kind := _kind_of_text(value[:_BEGIN_LENGTH])):
        return Look(kind, value.encode(errors="replace"))
    if isinstance(value, bytes):
        for signature, kind in _SIGNATURES:
            if value.startswith(signature):
                return Look(kind, value)
    return None


def _kind_of_text(begin: str) -> str | None:
    """Whether a text that begins so is SVG or HTML."""
    begin = begin.lower().lstrip()
    while found := next((each for each in _BEFORE if begin.startswith(each[0])), None):
        begin = begin.partition(found[1])[2].lstrip()
    for start, kind in (("<svg", SVG), ("<html", HTML), ("<!doctype html", HTML)):
        if begin.startswith(start) and not begin[len(start) : len(start) + 1].isalnum():
            return kind
    return None


def png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """A PNG file of pixels, 8 bits a channel: grey, RGB or RGBA.

    Source: https://www.w3.org/TR/png-3/
    """
    stride = width * channels
    lines = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, height * stride, stride))
    header = struct.pack("!IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))
        for kind, data in parts
    )
