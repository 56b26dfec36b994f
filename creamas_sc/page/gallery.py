"""Which artifacts there are, in numbers only: 20 bytes of memory for each.

From these the page chooses the newest or the best, of an agent, up to a step; only what it then
shows is asked for as a whole.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from heapq import nlargest
from itertools import islice
from typing import Any, Final, Protocol

import anyio

from creamas_sc.page.source import Asked, Json, PageError, Picture
from creamas_sc.runtime.pictures import Look

# Artifacts that are chosen from: if there are more, the first ones.
MOST_ARTIFACTS: Final = 1_000_000
MOST_LABELS: Final = 100_000
# How many are asked for at a time, and how often for one answer; the next answer goes on.
BATCH: Final = 2000
BATCHES: Final = 60
MOST_AGENTS: Final = 200
# Of the pictures that are kept.
PICTURE_BYTES: Final = 64 << 20
# Pixels of a picture in a gallery.
SIDE: Final = 256

_NONE: Final = -1  # no step


class Reader(Protocol):
    """Reads artifacts where they are; see `creamas_sc.results.artifact_views.ArtifactViews`."""

    async def scores(self, since: int, limit: int) -> Mapping[str, Any]:
        """Columns of artifacts."""

    async def views(
        self, numbers: Sequence[int], whole: bool, side: int
    ) -> Sequence[Mapping[str, Any]]:
        """Artifacts."""


class Gallery:
    """The artifacts of one run.

    Args:
        address: Of its artifacts in the page, relative; and the query that their pictures get.
    """

    def __init__(self, address: str, query: str) -> None:
        self.total = 0
        self._address, self._query = address, query
        self._steps, self._agents, self._scores = array("q"), array("l"), array("d")
        self._labels: dict[str, int] = {}
        self._pictures = Pictures()
        self._lock = anyio.Lock()

    async def refresh(self, reader: Reader) -> None:
        """Take in the artifacts that are new."""
        async with self._lock:
            for _ in range(BATCHES):
                known = len(self._steps)
                columns = await reader.scores(known, min(BATCH, MOST_ARTIFACTS - known))
                self.total = columns["total"]
                if self.total < known:  # the run was resumed at an earlier step
                    del self._steps[:], self._agents[:], self._scores[:]
                    continue
                for step, agent, score in zip(
                    columns["step"], columns["agent"], columns["score"], strict=True
                ):
                    self._steps.append(_NONE if step is None else step)
                    self._agents.append(self._labelled(agent))
                    self._scores.append(math.nan if score is None else score)
                known = len(self._steps)
                if known >= min(self.total, MOST_ARTIFACTS) or not columns["step"]:
                    return

    def _labelled(self, agent: str) -> int:
        if len(self._labels) >= MOST_LABELS:
            return self._labels.get(agent, _NONE)
        return self._labels.setdefault(agent, len(self._labels))

    def choose(self, asked: Asked) -> tuple[int, list[int], list[tuple[str, int]]]:
        """How many there are of those that are asked for; numbers of these; creators with counts.

        It takes long if there are many: call it in a thread.
        """
        upto = math.inf if asked.upto is None else asked.upto
        fitting = [at for at, step in enumerate(self._steps) if step <= upto]
        by_agent = Counter(self._agents[at] for at in fitting)
        if asked.agent is not None:
            wanted = self._labels.get(asked.agent)
            fitting = [at for at in fitting if self._agents[at] == wanted]
        end = asked.offset + asked.limit
        if asked.order == "best":
            chosen = nlargest(end, fitting, key=self._by_score)[asked.offset :]
        else:
            chosen = list(islice(reversed(fitting), asked.offset, end))
        names = list(self._labels)
        agents = [(names[at], n) for at, n in by_agent.most_common(MOST_AGENTS) if at != _NONE]
        return len(fitting), chosen, agents

    def _by_score(self, at: int) -> tuple[float, int]:
        score = self._scores[at]
        return (-math.inf if math.isnan(score) else score), at

    def counts(self, upto: int | None) -> dict[str, int]:
        """How many artifacts each creator has, by label, up to a step."""
        last = math.inf if upto is None else upto
        pairs = zip(self._steps, self._agents, strict=True)
        by_agent = Counter(agent for step, agent in pairs if step <= last)
        return {label: by_agent[at] for label, at in self._labels.items() if by_agent[at]}

    async def page(self, asked: Asked, reader: Reader) -> Json:
        """A page of artifacts."""
        await self.refresh(reader)
        found, numbers, agents = await anyio.to_thread.run_sync(self.choose, asked)
        found_views = await reader.views(numbers, asked.whole, SIDE)
        views = {view["artifact"]: view for view in found_views}
        make = self._whole_item if asked.whole else self._item
        items = [make(views[number]) for number in numbers if number in views]
        return {"total": self.total, "found": found, "items": items, "agents": agents}

    async def whole(self, number: int, reader: Reader) -> Json:
        """All of one artifact.

        Raises:
            PageError: There is none of that number.
        """
        return self._whole_item(await _view(number, True, reader))

    def _whole_item(self, view: Mapping[str, Any]) -> Json:
        evaluations, framings = view["evaluations"] or {}, view["framings"] or {}
        return {
            **self._item(view),
            "evaluations": [
                {"agent": agent, "evaluation": value, "framing": framings.get(agent)}
                for agent, value in islice(evaluations.items(), 500)
            ],
            "features": list(islice((view["features"] or {}).items(), 100)),
        }

    async def picture(self, number: int) -> Picture | None:
        """How an artifact looks, if that was asked for lately; else `look_at` it first."""
        look = self._pictures.get(number)
        if look is None:
            return None
        return Picture(*await anyio.to_thread.run_sync(look.as_file))

    async def look_at(self, number: int, reader: Reader) -> None:
        """Fetch how an artifact looks.

        Raises:
            PageError: It has no picture, or is not there.
        """
        if self._item(await _view(number, False, reader))["picture"] is None:
            raise PageError(404, f"artifact {number} has no picture")

    def _item(self, view: Mapping[str, Any]) -> Json:
        picture = None
        number = view["artifact"]
        if view["look"] is not None:
            look = Look(*view["look"])
            self._pictures.keep(number, look)
            url = f"{self._address}/{number}/picture{self._query}"
            picture = {"type": look.media_type, "url": url}
        names = (
            "artifact",
            "step",
            "class",
            "domain",
            "object_class",
            "score",
            "evaluated",
            "text",
        )
        creator = view["creator"] or ""
        return {
            **{name: view[name] for name in names},
            "agent": creator,
            "creator": creator,
            "picture": picture,
        }


async def _view(number: int, whole: bool, reader: Reader) -> Mapping[str, Any]:
    views = await reader.views([number], whole, SIDE)
    if not views:
        raise PageError(404, f"there is no artifact {number}")
    return views[0]


class Pictures:
    """Those that were shown last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Look] = OrderedDict()
        self._bytes = 0

    def get(self, number: int) -> Look | None:
        """How the artifact of that number looks, if that is kept."""
        if number in self._kept:
            self._kept.move_to_end(number)
        return self._kept.get(number)

    def keep(self, number: int, look: Look) -> None:
        """Keep it, in the place of what was not shown for longest."""
        before = self._kept.pop(number, None)
        self._bytes += len(look.data) - (0 if before is None else len(before.data))
        self._kept[number] = look
        while self._bytes > PICTURE_BYTES:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.data)
