"""The results of a run: a table, a contact sheet of published pictures, and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .agent import gears_of
from .curves import Gears, curve, novelties
from .society import Step

__all__ = ["contact_sheet", "effects_plot", "table"]

Color = tuple[int, int, int]
# The steps of each society, by its name.
Runs = Mapping[str, Sequence[Step]]

PAPER: Color = (252, 250, 245)
INK: Color = (60, 58, 54)
FAINT: Color = (224, 220, 210)
EARLY: Color = (38, 84, 124)
LATE: Color = (206, 84, 48)
COLORS: tuple[Color, ...] = (EARLY, LATE, (122, 117, 106))  # of societies, in the plot
BAND_ALPHA = 45  # of 255
WINDOW = 41  # published pictures, or
STEPS_WINDOW = 5  # steps of which a line in the plot is the mean
SCALE = 3  # everything is drawn this many times larger and then shrunk, for smooth lines


def table(runs: Runs) -> str:
    """Return what came of each society's inventions, as text."""
    width = max(map(len, runs))
    columns = ("invented", "discarded", "opinions", "vetoed", "published", "novelty")
    lines = ["".join(["society".ljust(width), *(name.rjust(11) for name in columns)])]
    for name, steps in runs.items():
        counts = [(step.invented, step.discarded, step.asked) for step in steps]
        invented, discarded, asked = map(sum, zip(*counts, strict=True))
        published = sum(len(step.published) for step in steps)
        found = novelty_of_published(steps)
        novelty = f"{fmean(found):.3f}" if found else "-"
        vetoed = invented - discarded - published
        row = (invented, discarded, asked, vetoed, published, novelty)
        lines.append("".join([name.ljust(width), *(str(each).rjust(11) for each in row)]))
    return "\n".join(lines)


def novelty_of_published(steps: Sequence[Step]) -> list[float]:
    """Return the distance of each published picture but the first to the most similar before it."""
    return novelties([made.obj for step in steps for made in step.published])


def contact_sheet(
    steps: Sequence[Step], path: Path, about: str = "", columns: int = 16, most: int = 256
) -> None:
    """Draw the published spirographs in order of publication, from blue to red.

    Args:
        about: The run, in a few words.
        most: The largest number of tiles; from more publications, evenly spaced ones are shown.
    """
    published = [(step.number, gears_of(made)) for step in steps for made in step.published]
    shown = published
    if len(published) > most:
        shown = [published[round(i)] for i in np.linspace(0, len(published) - 1, most)]
    tile, gap, top = 72, 10, 44
    rows = max(1, math.ceil(len(shown) / columns))
    image, draw = _canvas(columns * (tile + gap) + gap, rows * (tile + gap) + gap + top)
    words = f"{len(published)} spirographs were published in {len(steps)} steps"
    if len(shown) < len(published):
        words += f"; {len(shown)} of them are shown, evenly spaced"
    words += ", the first in blue, the last in red"
    _text(draw, (gap + 2, 22), words, "lm", 17)
    _text(draw, (image.width / SCALE - gap - 2, 22), about, "rm", 14)
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


def effects_plot(runs: Runs, path: Path, about: str = "") -> None:
    """Plot what vetoes and self-criticism do: how novel is what is published, and at what effort.

    Lines are means over `WINDOW` pictures and `STEPS_WINDOW` steps. The bands are one standard
    deviation of single pictures.

    Args:
        about: The run, in a few words.
    """
    image, draw = _canvas(1120, 540)
    found = {name: novelty_of_published(steps) for name, steps in runs.items()}
    # As far as all have got: the more has been published, the harder it is to be novel.
    common = max(2, min(map(len, found.values())))
    values = [value for each in found.values() for value in each[:common]]
    most = math.ceil(max(values, default=0.1) * 10) / 10
    axes = _Axes(draw, (60, 100, 560, 470), (1, common), most, 0.1)
    _text(draw, (60, 26), "Novelty of published pictures", "lm", 19)
    _text(draw, (60, 50), "the distance to the most similar one published before:", "lm", 14)
    words = f"0 the same, 1 the opposite; means of {WINDOW} pictures; bands: one standard deviation"
    _text(draw, (60, 70), words, "lm", 14)
    _text(draw, (310, 504), "pictures published", "mt", 15)
    for color, each in zip(COLORS, found.values(), strict=False):
        axes.series([[value] for value in each[:common]], color, WINDOW, band=True)

    asked = {name: [float(step.asked) for step in steps] for name, steps in runs.items()}
    steps = max(map(len, asked.values()))
    highest = max((value for each in asked.values() for value in each), default=0.0)
    tick = _tick(highest)
    axes = _Axes(draw, (640, 100, 1090, 470), (1, steps), tick * (highest // tick + 1), tick)
    _text(draw, (640, 26), "Opinions asked in a step", "lm", 19)
    _text(draw, (640, 50), f"of all agents together; means of {STEPS_WINDOW} steps", "lm", 14)
    _text(draw, (865, 504), "step", "mt", 15)
    for color, numbers in zip(COLORS, asked.values(), strict=False):
        axes.series([[value] for value in numbers], color, STEPS_WINDOW)

    for place, (name, color) in enumerate(zip(runs, COLORS, strict=False)):
        _text(draw, (1090, 30 + 20 * place), name, "rm", 15, color)
    _text(draw, (1090, 524), about, "rm", 14)
    _save(image, path)


class _Axes:
    """The axes of a plot: draws their grid, and places numbers and values on them.

    Args:
        box: Left, top, right and bottom.
        ends: The first number and the last one.
        most: The end of the scale, which begins at 0; a multiple of ``tick``.
        tick: The distance between the lines of the grid.
    """

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        box: tuple[int, int, int, int],
        ends: tuple[int, int],
        most: float,
        tick: float,
    ) -> None:
        self._draw = draw
        self._left, self._top, self._right, self._bottom = box
        self._first, self._last = ends[0], max(ends[1], ends[0] + 1)
        self._most = most
        for count in range(round(most / tick) + 1):
            y = self.place(1, count * tick)[1]
            _line(draw, [(self._left, y), (self._right, y)], FAINT, 1)
            label = f"{count * tick:.1f}" if tick < 1 else f"{count * tick:.0f}"
            _text(draw, (self._left - 10, y), label, "rm", 14)
        apart = _tick(self._last)
        between = range(apart, self._last - apart // 2, apart)
        for number in sorted({self._first, *between, self._last}):
            _text(draw, (self.place(number, 0.0)[0], self._bottom + 10), str(number), "mt", 14)

    def place(self, number: int, value: float) -> tuple[float, float]:
        across = (number - self._first) / (self._last - self._first)
        x = self._left + across * (self._right - self._left)
        return x, self._bottom - value / self._most * (self._bottom - self._top)

    def series(
        self, values: Sequence[Sequence[float]], color: Color, window: int, *, band: bool = False
    ) -> None:
        """Draw a line through the mean, and a band for the standard deviation, over ``window``."""
        line, lower, upper = [], [], []
        for index in range(len(values)):
            number = self._first + index
            near = values[max(0, index - window // 2) : index + window // 2 + 1]
            found = [value for each in near for value in each]
            if found:
                mean, deviation = fmean(found), pstdev(found)
                line.append(self.place(number, mean))
                lower.append(self.place(number, max(0.0, mean - deviation)))
                upper.append(self.place(number, min(self._most, mean + deviation)))
        if len(line) > 1:
            if band:
                outline = [(x * SCALE, y * SCALE) for x, y in (*upper, *reversed(lower))]
                self._draw.polygon(outline, fill=(*color, BAND_ALPHA))
            _line(self._draw, line, color, 3)


def _tick(most: float) -> int:
    """Return a round number, 1 at least, that fits into ``most`` up to eight times."""
    tick = 1
    for factor in cycle((2, 2.5, 2)):
        if most / tick <= 8:
            break
        tick = int(tick * factor)
    return tick


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    return image, ImageDraw.Draw(image, "RGBA")  # it mixes colours


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
