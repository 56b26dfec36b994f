"""How values look: what is a picture, of which kind, and what is none."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from creamas_sc.runtime import pictures
from creamas_sc.runtime.pictures import HTML, MAX_BYTES, PIXELS, PNG, SVG, look, own_look

GRADIENT = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)


class Shows:
    """Shows itself in one way."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def give(self) -> Any:
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class AsPng(Shows):
    _repr_png_ = Shows.give


class AsSvg(Shows):
    _repr_svg_ = Shows.give


class AsHtml(Shows):
    _repr_html_ = Shows.give


class AsAll(AsHtml, AsSvg):
    """Shows itself in two ways."""


def test_an_array_is_pixels_until_it_is_shown() -> None:
    found = look(GRADIENT)
    assert found is not None
    assert (found.kind, found.media_type, found.data) == (PIXELS, PNG, GRADIENT.tobytes())
    kind, data = found.as_file()
    assert kind == PNG
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), GRADIENT)


def test_a_large_array_has_fewer_pixels() -> None:
    found = look(np.zeros((1000, 3000), np.uint8), side=256)
    assert found is not None
    assert (found.width, found.height) == (250, 84)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("<svg width='1'></svg>", SVG),
        ("  \n<?xml version='1.0'?>\n<!-- a -->\n<svg\n></svg>", SVG),
        ("<!DOCTYPE svg PUBLIC 'x'><svg></svg>", SVG),
        ("<!doctype html><p>", HTML),
        ("<HTML><p>", HTML),
        (pictures.png(b"\0" * 64, 8, 8, 1), PNG),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (AsPng(b"png"), PNG),
        (AsSvg("<svg/>"), SVG),
        (AsHtml("<b>x</b>"), HTML),
        (AsAll("<svg/>"), SVG),
    ],
)
def test_what_is_a_picture(value: Any, kind: str) -> None:
    found = look(value)
    assert found is not None
    assert (found.media_type, found.as_file()[0]) == (kind, kind)


@pytest.mark.parametrize(
    "value",
    [
        *("text", "a <svg>", "<svgx>", "<p>x</p>", "", b"", b"bytes", 1, None, (1, 2)),
        *(AsPng("text"), AsSvg(b"bytes"), AsHtml(None)),
        *(AsPng(ValueError("broken")), AsSvg(SystemExit()), AsHtml(KeyboardInterrupt())),
        "<svg>" + "x" * MAX_BYTES,
        np.zeros((7, 7), np.uint8),
    ],
)
def test_what_is_none(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "is_ctrl_c", lambda error: False)
    assert look(value) is None


def test_an_artifact_is_no_html_of_its_own() -> None:
    assert own_look(AsHtml("<b>x</b>")) is None
    assert own_look(AsSvg(OSError("broken"))) is None
    assert own_look(AsSvg("<svg/>")) == (SVG, b"<svg/>", 0, 0, 0)


def test_a_hostile_text_is_looked_at_in_no_time() -> None:
    assert look("<!--" * 100_000) is None
    assert look("<?xml " + "<!-- -->" * 100_000) is None


def test_a_png_is_whole() -> None:
    data = pictures.png(b"\1" * 100, 10, 10, 1)
    assert zlib.crc32(data[12:29]) == int.from_bytes(data[29:33], "big")
