"""The results of a run: a table, a contact sheet of published pictures, and a plot of novelty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev

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
BAND_ALPHA, DOT_ALPHA = 45, 110  # of 255
WINDOW = 5  # steps of which the plot's line is the mean
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


def novelty_plot(steps: Sequence[Step], path: Path, about: str = "") -> None:
    """Plot the novelty of invented and of published pictures by step.

    Dots are the means of single steps. The line is the mean over `WINDOW` steps, the band around it
    one standard deviation of the single pictures' novelty there.

    Args:
        about: The run, in a few words.
    """
    series = (
        ("invented (to its inventor)", EARLY, [step.novelties for step in steps]),
        ("published (to all who judged it)", LATE, [_published(step) for step in steps]),
    )
    image, draw = _canvas(900, 540)
    highest = max((max(each) for *_, values in series for each in values if each), default=1.0)
    axes = _Axes(draw, (70, 90, 870, 470), len(steps), math.floor(highest * 10 + 1) / 10)
    _text(draw, (70, 26), "Novelty by step", "lm", 19)
    words = "the distance to the most similar picture remembered: 0 the same, 1 the opposite"
    _text(draw, (70, 50), words, "lm", 14)
    words = f"dots: mean of a step; line: mean of {WINDOW} steps; band: one standard deviation"
    _text(draw, (70, 70), words, "lm", 14)
    _text(draw, (870, 522), about, "rm", 14)
    for place, (name, color, values) in enumerate(series):
        axes.series(values, color)
        _text(draw, (870, 50 + 20 * place), name, "rm", 15, color)
    _save(image, path)


class _Axes:
    """The axes of the plot: draws their grid, and places steps and values on them.

    Args:
        box: Left, top, right and bottom.
        most: The end of the scale, which begins at 0; a multiple of 0.1.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], steps: int, most: float
    ) -> None:
        self._draw = draw
        self._left, self._top, self._right, self._bottom = box
        self._steps = max(steps, 2)
        self._most = most
        for tick in range(round(most * 10) + 1):
            y = self.place(1, tick / 10)[1]
            _line(draw, [(self._left, y), (self._right, y)], FAINT, 1)
            _text(draw, (self._left - 10, y), f"{tick / 10:.1f}", "rm", 14)
        for number in sorted({1, *range(10, steps + 1, max(10, steps // 100 * 10)), steps}):
            x = self.place(number, 0.0)[0]
            _text(draw, (x, self._bottom + 10), str(number), "mt", 14)
        _text(draw, ((self._left + self._right) / 2, self._bottom + 34), "step", "mt", 15)

    def place(self, number: int, value: float) -> tuple[float, float]:
        across = (number - 1) / (self._steps - 1)
        up = value / self._most
        x = self._left + across * (self._right - self._left)
        return x, self._bottom - up * (self._bottom - self._top)

    def series(self, values: Sequence[Sequence[float]], color: Color) -> None:
        """Draw the values of each step: their means, and line and band over `WINDOW` steps."""
        line, lower, upper = [], [], []
        for index, own in enumerate(values):
            near = values[max(0, index - WINDOW // 2) : index + WINDOW // 2 + 1]
            window = [value for each in near for value in each]
            if own:
                self._dot(self.place(index + 1, fmean(own)), color)
            if window:
                mean, deviation = fmean(window), pstdev(window)
                line.append(self.place(index + 1, mean))
                lower.append(self.place(index + 1, max(0.0, mean - deviation)))
                upper.append(self.place(index + 1, min(self._most, mean + deviation)))
        if len(line) > 1:
            band = [(x * SCALE, y * SCALE) for x, y in (*upper, *reversed(lower))]
            self._draw.polygon(band, fill=(*color, BAND_ALPHA))
            _line(self._draw, line, color, 3)

    def _dot(self, place: tuple[float, float], color: Color) -> None:
        x, y = place
        box = [(x - 2) * SCALE, (y - 2) * SCALE, (x + 2) * SCALE, (y + 2) * SCALE]
        self._draw.ellipse(box, fill=(*color, DOT_ALPHA))


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
