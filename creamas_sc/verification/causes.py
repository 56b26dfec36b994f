"""Why two runs differ: what there is evidence for, and no more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from creamas_sc.core.digests import Form
from creamas_sc.verification.differences import Place

_ADDRESS = re.compile(r"tcp://[^\s/]+:\d+/\d*")
_IN_MEMORY = re.compile(r" at 0x[0-9a-f]{6,}")
# Of a value, so many pieces are looked at.
_MAX_PIECES = 10_000

USES_ADDRESS = (
    "the value holds an address, which is another one in each run; agent.number is the same"
)
USES_MEMORY = "the value holds the place of an object in memory, as Python's default repr does"
USES_TIME = "the value is the time at which it was made"
REORDERED = "the same items are there in another order"
REORDERED_AGENTS = (
    f"{REORDERED}, which are agents: sort agents by agent.number, as addresses are others in each "
    "run"
)
HASHES_DIFFER = (
    "strings hash differently in the two runs, as PYTHONHASHSEED is not fixed, so sets of them "
    "have another order"
)
FREE_CALLS = (
    'agents\' calls are free, so what they lead to may depend on timing: see calls="rounds"'
)


class Window(NamedTuple):
    """The time in which runs went on, by two clocks, in seconds.

    Attributes:
        wall: Since 1970, the first and the last moment.
        monotonic: Since the machine's start.
    """

    wall: tuple[float, float]
    monotonic: tuple[float, float]

    @classmethod
    def since(cls, begin: Window | None = None) -> Window:
        """The window that ends now, and begins with another one or now."""
        wall, monotonic = time.time(), time.monotonic()
        if begin is None:
            return cls((wall, wall), (monotonic, monotonic))
        return cls((begin.wall[0], wall), (begin.monotonic[0], monotonic))

    def has(self, number: float) -> bool:
        """Whether a number is a time in the window, in seconds or, as an int, in nanoseconds.

        A whole number of seconds since the machine's start may be any count, so it is none.
        """
        seconds = number if type(number) is float else number / 1e9
        if self.wall[0] <= number <= self.wall[1] or self.wall[0] <= seconds <= self.wall[1]:
            return True
        return self.monotonic[0] <= seconds <= self.monotonic[1] and not seconds.is_integer()


class Evidence(NamedTuple):
    """What is known of two runs besides the values that differ.

    Attributes:
        window: When they went on.
        hashes: Of one string, in the slaves of the one run and of the other.
        generators: Names of the generators of whole processes that were used in the step, and
            where.
        why: Why the step is not repeatable, by the report of either run.
        free: Whether agents' calls are free.
    """

    window: Window
    hashes: tuple[Sequence[int], Sequence[int]] = ((), ())
    generators: Mapping[str, str] = {}
    why: Sequence[str] = ()
    free: bool = False


def causes_of(places: Iterable[Place], evidence: Evidence) -> list[str]:
    """What makes two runs differ, in words, as far as there is evidence.

    Args:
        places: Where they differ first.
    """
    found: dict[str, None] = {}
    for place in places:
        found |= dict.fromkeys(_causes_at(place, evidence.window))
    if len({*evidence.hashes[0], *evidence.hashes[1]}) > 1:
        found[HASHES_DIFFER] = None
    for name, where in evidence.generators.items():
        own = "agent.rng" if name == "random" else "agent.numpy_rng"
        found[
            f"{name}, a generator that agents share, was used ({where}): other slaves have others; "
            f"draw from {own}"
        ] = None
    found |= dict.fromkeys(f"the step is not repeatable: {why}" for why in evidence.why)
    if evidence.free:
        found[FREE_CALLS] = None
    return list(found)


def _causes_at(place: Place, window: Window) -> Iterator[str]:
    if place.reordered:
        one = place.forms[0]
        items = [item[0] if one[0] == "dict" else item for item in one[2:]]
        agents = any(type(item) is list and item[0] == "agent" for item in items)
        yield REORDERED_AGENTS if agents else REORDERED
        return
    pieces = [piece for form in place.forms for piece in _pieces(form)]
    texts = [piece for piece in pieces if type(piece) is str]
    if any(map(_ADDRESS.search, texts)):
        yield USES_ADDRESS
    if any(map(_IN_MEMORY.search, texts)):
        yield USES_MEMORY
    if all(any(_is_time(piece, window) for piece in _pieces(form)) for form in place.forms):
        yield USES_TIME


def _is_time(piece: Any, window: Window) -> bool:
    return type(piece) in (int, float) and window.has(piece)


def _pieces(form: Form) -> Iterator[Any]:
    """The numbers and texts of a form, the first ones."""
    left, unseen = _MAX_PIECES, [form]
    while unseen and left:
        left -= 1
        piece = unseen.pop()
        if type(piece) is list:
            unseen += piece
        else:
            yield piece
