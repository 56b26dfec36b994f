"""Spirographs: the hypotrochoids that a pen in a wheel draws inside a toothed ring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SIDE",
    "Gears",
    "Image",
    "curve",
    "distance",
    "mutate",
    "novelties",
    "picture",
    "random_gears",
]

Image = NDArray[np.uint8]

SIDE = 32  # pixels along each side of a picture
RINGS = (3, 24)  # teeth of a ring, least and most
PENS = (0.2, 1.6)  # the pen's distance from the wheel's centre, in wheel radii, least and most
POINTS_PER_TURN = 120
INK = 1.5  # strokes through a pixel that darken it by a factor of e


class Gears(NamedTuple):
    """What a spirograph is drawn with.

    The numbers of teeth are small: with more, 32 x 32 pixels would show only a grey disc.
    """

    ring: int  # teeth
    wheel: int  # teeth, fewer than the ring's
    pen: float  # distance from the wheel's centre, in wheel radii
    tilt: float  # where the pen starts, in turns

    @property
    def turns(self) -> int:
        """Turns of the wheel's centre around the ring until the curve closes."""
        return self.wheel // math.gcd(self.ring, self.wheel)

    @property
    def petals(self) -> int:
        """How many times the curve comes close to the ring."""
        return self.ring // math.gcd(self.ring, self.wheel)


def random_gears(rng: np.random.Generator) -> Gears:
    """Draw gears at random, evenly from all that fit together."""
    ring = int(rng.integers(*RINGS, endpoint=True))
    wheel = int(rng.integers(1, ring))
    return Gears(ring, wheel, float(rng.uniform(*PENS)), float(rng.uniform()))


def mutate(gears: Gears, rng: np.random.Generator, spread: float = 0.1) -> Gears:
    """Return gears near the given ones.

    Args:
        spread: Standard deviation of each change, as a share of that gear's whole range.
    """
    change = rng.normal(0.0, spread, size=4)
    least, most = RINGS
    ring = int(np.clip(round(gears.ring + change[0] * (most - least)), least, most))
    wheel = int(np.clip(round(gears.wheel + change[1] * ring), 1, ring - 1))
    pen = np.clip(gears.pen + change[2] * (PENS[1] - PENS[0]), *PENS)
    return Gears(ring, wheel, float(pen), float(gears.tilt + change[3]) % 1.0)


def curve(gears: Gears) -> NDArray[np.float64]:
    """Return the closed curve as an (n, 2) array, scaled to the unit circle.

    With a ring of radius 1, a wheel of radius r and a pen at d from its centre (J. D. Lawrence, "A
    Catalog of Special Plane Curves", 1972), before scaling and tilting:

        x = (1 - r) cos t + d cos(t (1 - r) / r),    y = (1 - r) sin t - d sin(t (1 - r) / r)
    """
    wheel = gears.wheel / gears.ring
    pen = gears.pen * wheel
    # A small wheel spins often in one turn: its loops need additional points.
    points = (gears.turns + gears.petals // 3) * POINTS_PER_TURN
    t = np.linspace(0.0, 2.0 * math.pi * gears.turns, points)
    spin = t * (1.0 - wheel) / wheel
    tilt = 2.0 * math.pi * gears.tilt
    x = (1.0 - wheel) * np.cos(t + tilt) + pen * np.cos(spin - tilt)
    y = (1.0 - wheel) * np.sin(t + tilt) - pen * np.sin(spin - tilt)
    return np.stack([x, y], axis=1) / (1.0 - wheel + pen)


def picture(gears: Gears, side: int = SIDE) -> Image:
    """Draw the spirograph: ``side`` x ``side`` grey values, from 0 (paper) to 255 (full ink)."""
    xy = (curve(gears) + 1.0) * (0.5 * (side - 2)) + 0.5
    x, y = xy.astype(np.intp).T
    right, down = xy.T - (x, y)
    both = right * down
    # Each point is spread over the four pixels around it, with more ink on the nearer ones.
    pixel = y * side + x
    pixels = np.concatenate((pixel, pixel + 1, pixel + side, pixel + side + 1))
    weights = np.concatenate((1 - right - down + both, right - both, down - both, both))
    ink = np.bincount(pixels, weights=weights, minlength=side * side)
    strokes = ink * (side * gears.turns * 3.0 / len(xy))  # a turn is about 3 sides long
    grey: Image = np.rint(255.0 * (1.0 - np.exp(-strokes / INK))).astype(np.uint8)
    return grey.reshape(side, side)


def distance(image: Image, others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the root mean square difference of ``image`` to each of ``others``, from 0 to 1."""
    difference = others - image
    squares: NDArray[np.float32] = np.einsum("nij,nij->n", difference, difference)
    rms: NDArray[np.float32] = np.sqrt(squares / np.float32(image.size))
    return rms / np.float32(255)


def novelties(images: Sequence[Image], block: int = 256) -> list[float]:
    """Return the distance of each picture but the first to the most similar one before it.

    As `distance`, of all at once. The numbers are whole and below 2**53, so they are exact, however
    the machine adds them up.
    """
    if not images:
        return []
    rows = np.stack(images).reshape(len(images), -1).astype(np.float64)
    lengths = np.einsum("np,np->n", rows, rows)
    nearest: list[float] = []
    for start in range(0, len(rows), block):
        end = min(start + block, len(rows))
        squares = lengths[start:end, None] + lengths[:end] - 2.0 * rows[start:end] @ rows[:end].T
        squares[np.triu(np.ones(squares.shape, dtype=bool), start)] = np.inf
        nearest += (np.sqrt(squares.min(axis=1) / rows.shape[1]) / 255.0).tolist()
    return nearest[1:]
