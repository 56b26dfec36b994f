"""The page as one file, with its data inside: for an appendix, or to send to somebody.

It has the scripts and styles of the page, in a policy that allows these and nothing else, by their
hashes; pictures are in it, too.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from typing import Final

from creamas_sc.foreign import shorten
from creamas_sc.page.app import static_file, to_json
from creamas_sc.page.source import Asked, Json, PageError, Source
from creamas_sc.runtime.installation import installed_version

# Of runs, those whose artifacts and society are in the report, the last ones.
MOST_RUNS: Final = 24
# Of artifacts: so many of the newest, and as many of the best, of all runs together.
MOST_ARTIFACTS: Final = 300
MOST_PARAMETERS: Final = 8
# Of all pictures, as they are in the file; artifacts beyond that have none.
PICTURE_BYTES: Final = 32 << 20
# Of each artifact.
TEXT_LENGTH: Final = 1000
MOST_EVALUATIONS: Final = 30
POINTS: Final = 1000
LOG_LINES: Final = 200
_STYLE: Final = re.compile(r'^[ \t]*<link rel="stylesheet" href="static/([^"/]+)">[ \t]*\n?', re.M)
_SCRIPT: Final = re.compile(r'^[ \t]*<script src="static/([^"/]+)" defer></script>[ \t]*\n?', re.M)
_DATA: Final = re.compile(r"^[ \t]*<!-- data -->[ \t]*\n?", re.M)
_HEAD: Final = re.compile(r'<meta charset="utf-8">')


async def report(source: Source) -> str:
    """The page of a source as it is now, as HTML.

    Raises:
        PageError, CreamasError, OSError: It cannot be read.
    """
    return to_html(await collect(source))


async def collect(source: Source) -> Json:
    """All that the report has of a source."""
    runs = await source.runs()
    by = {}
    for name in runs["parameters"][:MOST_PARAMETERS]:
        by[name] = await source.metrics(name, POINTS)
    names = [run["run"] for run in runs["runs"][-MOST_RUNS:]]
    artifacts, totals, societies = {}, {}, {}
    pictures = _Pictures(source)
    for run in names:
        societies[run] = await source.society(run, None)
        artifacts[run], totals[run] = await _artifacts(source, run, len(names), pictures)
    return {
        "made": time.time(),
        "session": {
            "token": "",
            "read_only": True,
            "version": installed_version(),
            "daemon": source.daemon,
            "sources": [{"name": source.name, "kind": source.kind}],
        },
        "state": {**await source.state(), "can_steer": False},
        "runs": runs,
        "metrics": await source.metrics(None, POINTS),
        "metrics_by": by,
        "artifacts": artifacts,
        "artifacts_total": totals,
        "society": societies,
        "slaves": await source.slaves(),
        "log": await source.log(LOG_LINES),
    }


async def _artifacts(
    source: Source, run: str, runs: int, pictures: _Pictures
) -> tuple[list[Json], int]:
    """The newest and the best artifacts of a run, and how many it has."""
    most, total = MOST_ARTIFACTS // runs, 0
    found: dict[int, Json] = {}
    for order in ("newest", "best"):
        for offset in range(0, most, 100):
            limit = min(100, most - offset)
            asked = Asked(order, offset=offset, limit=limit, whole=True)
            page = await source.artifacts(run, asked)
            total = page["total"]
            found |= {item["artifact"]: _shortened(item) for item in page["items"]}
    items = [found[number] for number in sorted(found)]
    return [{**item, "picture": await pictures.inline(run, item)} for item in items], total


def _shortened(item: Json) -> Json:
    return {
        **item,
        "text": shorten(item["text"], TEXT_LENGTH),
        "evaluations": item["evaluations"][:MOST_EVALUATIONS],
        "features": item["features"][:MOST_EVALUATIONS],
    }


class _Pictures:
    """Pictures as data: URIs, of a limited size together."""

    def __init__(self, source: Source) -> None:
        self._source, self._left = source, PICTURE_BYTES

    async def inline(self, run: str, item: Json) -> Json:
        """The picture of an artifact; None if it has none, or if there is no room."""
        if item["picture"] is None or self._left <= 0:
            return None
        try:
            picture = await self._source.picture(run, item["artifact"])
        except PageError:  # it has gone since
            return None
        url = f"data:{picture.kind};base64,{base64.b64encode(picture.data).decode()}"
        self._left -= len(url)
        return {"type": picture.kind, "url": url} if self._left >= 0 else None


def to_html(data: Json) -> str:
    """The page with ``data`` in it."""
    page = _text("index.html")
    styles = [_text(name) for name in _STYLE.findall(page)]
    scripts = [_text(name).replace("</script", "<\\/script") for name in _SCRIPT.findall(page)]
    inside = to_json(data).replace("<", "\\u003c")
    block = f'<script type="application/json" id="creamas-data">{inside}</script>\n'
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "img-src data:; frame-src data:; base-uri 'none'; form-action 'none'"
    )
    meta = f'<meta http-equiv="content-security-policy" content="{policy}">'
    # Functions, as a text to put in may have backslashes.
    page = _HEAD.sub(lambda found: f"{found[0]}\n{meta}", page, count=1)
    page = _STYLE.sub("", page)
    page = _SCRIPT.sub("", page)
    page = _DATA.sub("", page)
    css = "".join(f"<style>{style}</style>\n" for style in styles)
    code = "".join(f"<script>{script}</script>\n" for script in scripts)
    page = _before(page, "</head>", css)
    return _before(page, "</body>", block + code)


def _before(page: str, tag: str, more: str) -> str:
    head, found, rest = page.partition(tag)
    return head + more + found + rest


def _hashes(texts: Sequence[str]) -> str:
    """The sources of a policy that allow these texts and no other."""
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    found = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    return " ".join(found) or "'none'"


def _text(name: str) -> str:
    data = static_file(name)
    if data is None:
        raise FileNotFoundError(f"the page's file {name} is not installed")
    return data.decode()
