"""Values that tests send between processes, and one that cannot be sent; needs no trio."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from creamas_sc import Artifact
from creamas_sc.serializers import register


class Sketch(Artifact):
    """An artifact with one more attribute."""

    def __init__(self, creator: Any, obj: Any, style: str) -> None:
        super().__init__(creator, obj, domain=list)
        self.style = style


class Point:
    """A class that travels by a registered pair of functions."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))


class Mood(Enum):
    GOOD = 1
    BAD = "bad"


class Place(NamedTuple):
    x: int
    moods: tuple[Mood, ...] = ()


@dataclass(frozen=True)
class Route:
    """A class that travels by its name and fields."""

    places: tuple[Place, ...]
    length: float = 0


def shorten(route: Route) -> Route:
    """A function that travels by its name."""
    return replace(route, places=route.places[1:])


def pickled_tuples() -> tuple[Any, ...]:
    """A serializer as programs for creamas have it, for what travels without."""
    return tuple, pickle.dumps, pickle.loads


class Stranger:
    """A class that is not registered: it cannot travel."""


register(Point, lambda point: [point.x, point.y], lambda xy: Point(*xy))
