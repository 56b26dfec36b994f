"""The results of a run: a table, a contact sheet of published pictures, and a plot of novelty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .agent import gears_of
from .curves import Gears, curve
from .society import Step

__all__ = ["contact_sheet", "novelty_plot", "table"]

Color = tuple[int, int, int]

PAPER: Color = (252, 250, 245)
INK: Color = (60, 58, 54)
FAINT: Color = (224, 220, 210)
EARLY: Color = (38, 84, 124)
LATE: Color = (206, 84, 48)
SCALE = 3  # everything is drawn this many times larger and then shrunk, for smooth lines


def table(steps: Sequence[Step], rows: int = 6) -> str:
    """Return the numbers of invented and published pictures and their mean novelty, as text."""
    size = math.ceil(len(steps) / rows)
    parts = [steps[start : start + size] for start in range(0, len(steps), size)]
    lines = [f"{'steps':>9}{'invented':>10}{'novelty':>9}{'published':>11}{'novelty':>9}"]
    for part in parts:
        first, last = part[0].number, part[-1].number
        lines.append(_row(f"{first}-{last}" if first < last else str(first), part))
    return "\n".join([*lines, _row("all", steps)])


def _row(label: str, part: Sequence[Step]) -> str:
    invented = [novelty for step in part for novelty in step.novelties]
    published = [novelty for step in part for novelty in _published(step)]
    return (
        f"{label:>9}{len(invented):>10}{_mean(invented):>9}"
        f"{len(published):>11}{_mean(published):>9}"
    )


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" if values else "-"


def _published(step: Step) -> list[float]:
    """Return each published picture's mean novelty to all that judged it, its maker included."""
    return [fmean(artifact.evals.values()) for artifact in step.published]


def contact_sheet(steps: Sequence[Step], path: Path, columns: int = 16, most: int = 256) -> None:
    """Draw the published spirographs in order of publication, from blue to red.

    Args:
        most: The largest number of tiles; from more publications, evenly spaced ones are shown.
    """
    published = [(step.number, gears_of(made)) for step in steps for made in step.published]
    shown = published
    if len(published) > most:
        shown = [published[round(i)] for i in np.linspace(0, len(published) - 1, most)]
    tile, gap, top = 72, 10, 44
    rows = max(1, math.ceil(len(shown) / columns))
    image, draw = _canvas(columns * (tile + gap) + gap, rows * (tile + gap) + gap + top)
    count = f"{len(published)} spirographs were published in {len(steps)} steps"
    some = f" ({len(shown)} shown)" if len(shown) < len(published) else ""
    _text(draw, (gap + 2, 22), f"{count}{some}, the first in blue, the last in red", "lm", 17)
    for i, (number, gears) in enumerate(shown):
        row, column = divmod(i, columns)
        corner = (gap + column * (tile + gap), top + row * (tile + gap))
        _spirograph(draw, corner, tile, gears, _blend(number / len(steps)))
    _save(image, path)


def _spirograph(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: int, gears: Gears, color: Color
) -> None:
    xy = (curve(gears) + 1.0) * (tile / 2) + corner
    draw.line([(x * SCALE, y * SCALE) for x, y in xy], fill=color, width=SCALE)


def _blend(share: float) -> Color:
    red, green, blue = (
        round(early + (late - early) * share) for early, late in zip(EARLY, LATE, strict=True)
    )
    return red, green, blue


def novelty_plot(steps: Sequence[Step], path: Path) -> None:
    """Plot the mean novelty of invented and of published pictures by step."""
    invented = [(step.number, fmean(step.novelties)) for step in steps if step.novelties]
    published = [(step.number, fmean(_published(step))) for step in steps if step.published]
    image, draw = _canvas(900, 500)
    axes = _Axes(draw, (70, 60, 870, 440), len(steps), [value for _, value in invented + published])
    _text(draw, (70, 30), "Mean novelty by step", "lm", 19)
    axes.line(published, LATE)
    axes.line(invented, EARLY)
    _text(draw, (870, 22), "invented (to its inventor)", "rm", 15, EARLY)
    _text(draw, (870, 42), "published (to all who judged it)", "rm", 15, LATE)
    _save(image, path)


class _Axes:
    """The axes of the plot: draws their grid, and places steps and values on them."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        box: tuple[int, int, int, int],
        steps: int,
        values: Sequence[float],
    ) -> None:
        self._draw = draw
        self._left, self._top, self._right, self._bottom = box
        self._steps = max(steps, 2)
        # The scale starts near the least value, so that small differences show.
        spread = max(values) - min(values)
        unit = next((unit for unit in (0.01, 0.02, 0.05, 0.1) if spread < 6 * unit), 0.2)
        least, most = math.floor(min(values) / unit), math.floor(max(values) / unit) + 1
        self._least, self._most = least * unit, most * unit
        for tick in range(least, most + 1):
            y = self.place(1, tick * unit)[1]
            _line(draw, [(self._left, y), (self._right, y)], FAINT, 1)
            _text(draw, (self._left - 10, y), f"{tick * unit:.2f}", "rm", 14)
        for number in sorted({1, *range(10, steps + 1, max(10, steps // 100 * 10)), steps}):
            x = self.place(number, 0.0)[0]
            _text(draw, (x, self._bottom + 10), str(number), "mt", 14)
        _text(draw, ((self._left + self._right) / 2, self._bottom + 34), "step", "mt", 15)

    def place(self, number: int, value: float) -> tuple[float, float]:
        across = (number - 1) / (self._steps - 1)
        up = (value - self._least) / (self._most - self._least)
        x = self._left + across * (self._right - self._left)
        return x, self._bottom - up * (self._bottom - self._top)

    def line(self, points: Sequence[tuple[int, float]], color: Color) -> None:
        if not points:
            return
        places = [self.place(number, value) for number, value in points]
        _line(self._draw, places, color, 2)
        for x, y in places if len(places) < 100 else ():
            dot = [(x - 3) * SCALE, (y - 3) * SCALE, (x + 3) * SCALE, (y + 3) * SCALE]
            self._draw.ellipse(dot, fill=color)


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    return image, ImageDraw.Draw(image)


def _line(
    draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], color: Color, width: int
) -> None:
    scaled = [(x * SCALE, y * SCALE) for x, y in points]
    draw.line(scaled, fill=color, width=width * SCALE, joint="curve")


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    words: str,
    anchor: str,
    size: int,
    color: Color = INK,
) -> None:
    font = ImageFont.load_default(size * SCALE)
    draw.text((place[0] * SCALE, place[1] * SCALE), words, fill=color, font=font, anchor=anchor)


def _save(image: Image.Image, path: Path) -> None:
    image.reduce(SCALE).save(path)
