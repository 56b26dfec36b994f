"""What a page shows, and where it comes from: a simulation that runs, or records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

Json: TypeAlias = Any


class EventId(NamedTuple):
    """Where a stream of events is: ``generation`` is another one once numbers begin again."""

    generation: str
    number: int

    def __str__(self) -> str:
        return f"{self.generation}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> EventId | None:
        """The reverse of ``str``; None for any other text."""
        generation, dash, number = text.rpartition("-")
        if not dash or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return None
        return cls(generation, int(number))


# Sends one event: its id, if a reader may go on from there, its name and its data.
Emit: TypeAlias = Callable[[EventId | None, str, Json], Awaitable[None]]


class PageError(Exception):
    """A request cannot be answered.

    Args:
        status: The HTTP status.
        why: A sentence for people.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Picture(NamedTuple):
    """How an artifact looks.

    Attributes:
        kind: "image/png" or another type of images, "image/svg+xml" or "text/html".
    """

    kind: str
    data: bytes


class Asked(NamedTuple):
    """Which artifacts are asked for.

    Attributes:
        order: "newest" or "best".
        upto: The last step; None for all.
        agent: The label of their creator; None for all.
        whole: With all that is known of each.
    """

    order: str = "newest"
    upto: int | None = None
    agent: str | None = None
    offset: int = 0
    limit: int = 48
    whole: bool = False


class Source(ABC):
    """One of the things that a page shows; all answers are plain values.

    Each takes the name of a ``run``, None for the last one.

    Attributes:
        name: In the page's addresses.
        kind: "simulation" or "record".
        daemon: The name of its daemon; None for a record.
    """

    name: str
    kind: str
    daemon: str | None = None

    @abstractmethod
    async def state(self) -> Json:
        """How far it is."""

    @abstractmethod
    async def follow(self, last: EventId | None, emit: Emit) -> None:
        """Send what happens after the event ``last``, until cancelled."""

    @abstractmethod
    async def runs(self) -> Json:
        """The runs that it has."""

    @abstractmethod
    async def metrics(self, by: str | None, points: int) -> Json:
        """Metrics by step."""

    @abstractmethod
    async def artifacts(self, run: str | None, asked: Asked) -> Json:
        """A page of artifacts."""

    @abstractmethod
    async def artifact(self, run: str | None, number: int) -> Json:
        """All of one artifact."""

    @abstractmethod
    async def picture(self, run: str | None, number: int) -> Picture:
        """How an artifact looks."""

    @abstractmethod
    async def society(self, run: str | None, step: int | None) -> Json:
        """Agents and their connections."""

    @abstractmethod
    async def slaves(self) -> Json:
        """What its processes do."""

    @abstractmethod
    async def log(self, lines: int) -> Json:
        """The end of its log."""

    async def steer(self, how: str) -> Json:
        """Pause or resume it; returns its state."""
        raise PageError(409, "records cannot be paused nor resumed")


class Sources(ABC):
    """Those that a page has."""

    daemon: str | None = None

    @abstractmethod
    async def all(self) -> list[tuple[str, str]]:
        """Name and kind of each."""

    @abstractmethod
    def get(self, name: str) -> Source:
        """The source of that name.

        Raises:
            PageError: There is none.
        """
