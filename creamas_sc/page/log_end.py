"""The end of a simulation's log: its last lines, and the last of them that say what went wrong."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from creamas_sc.foreign import shorten
from creamas_sc.page.source import Json
from creamas_sc.runtime.log_files import BEGINS
from creamas_sc.runtime.log_tail import LogTail, parsed
from creamas_sc.runtime.paths import exposed

# Among so many lines errors are looked for, and so many are shown.
SEARCHED: Final = 2000
MOST_ERRORS: Final = 20
TEXT_LENGTH: Final = 1000
MORE_LENGTH: Final = 8000
_WRONG: Final = frozenset({"warning", "error", "critical"})
# Shown in another place, or not at all.
_NOT_VALUES: Final = frozenset(
    {"timestamp", "level", "event", "exception", "logger", "pid", "simulation", BEGINS}
)


def log_end(path: Path, simulation: str, lines: int) -> Json:
    """The last lines of the log at ``path``; it blocks.

    Args:
        simulation: Leave out what is from simulations that had this name before.
    """
    entries = []
    if path.parent.is_dir() and exposed(path.parent) is None and path.exists():
        with closing(LogTail(path.open("rb"), SEARCHED, simulation)) as tail:
            entries = [_entry(parsed(line)) for line in tail.read(whole=True)[-SEARCHED:]]
    wrong = [entry for entry in entries if entry["level"] in _WRONG]
    return {
        "errors": wrong[: -MOST_ERRORS - 1 : -1],
        "lines": entries[-lines:],
        "path": str(path),
    }


def _entry(line: dict[str, Any]) -> Json:
    if "printed" in line:
        text = shorten(line["printed"], TEXT_LENGTH)
        return {"when": None, "level": "printed", "text": text, "more": "", "values": ""}
    first, _, rest = str(line["event"]).partition("\n")
    more = "\n".join(filter(None, [rest, str(line.get("exception", ""))]))
    values = (f"{key}={value}" for key, value in line.items() if key not in _NOT_VALUES)
    return {
        "when": _moment(line.get("timestamp")),
        "level": str(line.get("level", "info")),
        "text": shorten(first, TEXT_LENGTH),
        "more": shorten(more, MORE_LENGTH),
        "values": shorten(" ".join(values), TEXT_LENGTH),
    }


def _moment(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
