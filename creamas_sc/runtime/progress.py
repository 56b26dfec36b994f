"""A progress bar for many steps, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

__all__ = ["with_progress"]

_WIDTH = 30
_REDRAW_SECONDS = 0.1


def with_progress(n: int, shown: bool = True) -> Iterator[int]:
    """Count from 0 to ``n - 1``, drawing how far it has come on standard error.

    Nothing is drawn for a single step, where standard error is no terminal, or unless ``shown``.
    """
    stream = sys.stderr
    if not shown or n < 2 or stream is None or not stream.isatty():
        yield from range(n)
        return
    started = drawn = time.monotonic()
    stream.write(_line(0, n, 0.0))
    stream.flush()
    try:
        for done in range(1, n + 1):
            yield done - 1
            now = time.monotonic()
            if now - drawn >= _REDRAW_SECONDS or done == n:
                stream.write(_line(done, n, now - started))
                stream.flush()
                drawn = now
    finally:
        stream.write("\n")
        stream.flush()


def _line(done: int, n: int, seconds: float) -> str:
    filled = _WIDTH * done // n
    left = f", {_clock(seconds * (n - done) / done)} left" if 0 < done < n else ""
    # The spaces wipe what is longer in the line before.
    bar = "#" * filled + "." * (_WIDTH - filled)
    return f"\r[{bar}] step {done}/{n} in {_clock(seconds)}{left}".ljust(80)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
