"""What notebooks show of artifacts, receipts, tables and runs."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from creamas_sc import Artifact, results
from creamas_sc.reports import SlaveReceipt, StopReport
from creamas_sc.runtime import html
from tests.support.records import write_run

GRADIENT = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)


def pixels_in(text: str | None) -> Any:
    """The pixels of the only picture in HTML."""
    assert text is not None
    (data,) = re.findall('src="data:image/png;base64,([^"]*)"', text)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GRADIENT, GRADIENT),
        (GRADIENT[..., 0], GRADIENT[..., 0]),
        (GRADIENT[..., :1], GRADIENT[..., 0]),
        (np.dstack([GRADIENT, GRADIENT[..., 0]]), np.dstack([GRADIENT, GRADIENT[..., 0]])),
        (np.full((8, 9), 0.5), np.full((8, 9), 127)),
        (np.ones((9, 8), bool), np.full((9, 8), 255)),
        (np.zeros((2000, 1000), np.uint8), np.zeros((500, 250))),
    ],
)
def test_an_array_of_pixels_is_a_picture(array: Any, expected: Any) -> None:
    assert np.array_equal(pixels_in(html.picture(array)), expected)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((7, 100), np.uint8),
        np.zeros((10, 10, 2), np.uint8),
        np.zeros(100, np.uint8),
        np.zeros((10, 10), np.int64),
        np.full((10, 10), 1.5),
        np.full((10, 10), np.nan),
        np.zeros((0, 0)),
        "text",
        None,
    ],
)
def test_anything_else_is_none(value: Any) -> None:
    assert html.picture(value) is None


def test_what_shows_itself_is_a_picture() -> None:
    image = Image.fromarray(GRADIENT)
    assert np.array_equal(pixels_in(html.picture(image)), GRADIENT)


def test_texts_are_escaped() -> None:
    text = html.table(["<a>"], [["<b>"], [{"<c>"}]], "<d>")
    assert not re.search("<[abcd]>", text)
    assert all(f"&lt;{letter}&gt;" in text for letter in "abcd")


def test_an_artifact() -> None:
    artifact = Artifact("<me>", GRADIENT, domain=np.ndarray)
    assert np.array_equal(pixels_in(artifact._repr_html_()), GRADIENT)
    assert "<table>" not in artifact._repr_html_()
    artifact.add_eval("critic", 0.25, "dull")
    text = artifact._repr_html_()
    assert "<div>Artifact of &lt;me&gt;</div>" in text
    assert "<tr><td>critic</td><td>0.25</td><td>dull</td></tr>" in text


def test_receipts() -> None:
    receipt = SlaveReceipt("tcp://a/0", 7, 0, None, 0.5, True, "request", ("no <shelf>",))
    text = StopReport([receipt], seed=3)._repr_html_()
    row = "<td>tcp://a/0</td><td>7</td><td>0</td><td></td><td>0.5</td><td>request</td>"
    assert f"<tr>{row}<td>no &lt;shelf&gt;</td></tr>" in text
    assert "seed 3" in text


def test_runs_and_tables(tmp_path: Path) -> None:
    write_run(tmp_path, [{"x": [1.5] * 30}], objects=[GRADIENT], parameters={"alpha": 1})
    found = results.open(tmp_path)
    text = found._repr_html_()
    assert "<td>run-1</td><td>m:C</td><td>1</td><td>{&quot;alpha&quot;:1}</td><td>1</td>" in text
    assert np.array_equal(pixels_in(found.artifacts._repr_html_()), GRADIENT)
    text = found.agents._repr_html_()
    assert text.count("<tr>") == 21
    assert "20 of 30 rows" in text
