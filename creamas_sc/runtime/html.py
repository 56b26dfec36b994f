"""HTML for notebooks: tables, and arrays of pixels as pictures. All text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from creamas_sc.foreign import shown
from creamas_sc.runtime.pictures import pixels


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
    found = pixels(value)
    if found is not None:
        data: Any = found.as_file()[1]
    else:
        data = own(value) if (own := getattr(type(value), "_repr_png_", None)) is not None else None
    if not isinstance(data, bytes):
        return None
    return f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}">'
