"""Which sources a page has: one, or all simulations of a daemon."""

from __future__ import annotations

from typing import Final

from creamas_sc.client import connect
from creamas_sc.errors import BadValue
from creamas_sc.page.live import ANSWER_SECONDS, LiveSource
from creamas_sc.page.source import PageError, Source, Sources
from creamas_sc.runtime.paths import check_name

# More simulations than a daemon has; the least recently shown one is forgotten.
_KEPT: Final = 64


class OneSource(Sources):
    """A single one."""

    def __init__(self, source: Source) -> None:
        self._source, self.daemon = source, source.daemon

    async def all(self) -> list[tuple[str, str]]:
        return [(self._source.name, self._source.kind)]

    def get(self, name: str) -> Source:
        if name != self._source.name:
            raise PageError(404, f"this page shows {self._source.name!r} only")
        return self._source


class DaemonSources(Sources):
    """The simulations of a daemon."""

    def __init__(self, daemon: str) -> None:
        self.daemon: str = daemon
        self._sources: dict[str, LiveSource] = {}

    async def all(self) -> list[tuple[str, str]]:
        async with connect(self.daemon) as client:
            client.timeout = ANSWER_SECONDS
            return [(each["name"], LiveSource.kind) for each in await client.ls()]

    def get(self, name: str) -> Source:
        try:
            check_name(name, "simulation")
        except BadValue as error:
            raise PageError(404, str(error)) from error
        source = self._sources.pop(name, None) or LiveSource(self.daemon, name)
        self._sources[name] = source
        while len(self._sources) > _KEPT:
            del self._sources[next(iter(self._sources))]
        return source
