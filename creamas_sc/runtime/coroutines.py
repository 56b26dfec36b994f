"""Coroutines driven by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

__all__ = ["watch"]


@coroutine
def watch(
    work: Coroutine[Any, Any, None], suspending: Callable[[Any], bool]
) -> Generator[Any, Any, None]:
    """Drive ``work`` as ``await`` would, and call ``suspending`` before it suspends.

    That is told what ``work`` yields to the loop, each time until it returns False.
    """
    try:
        trap = work.send(None)
        watched = True
        while True:
            watched = watched and suspending(trap)
            try:
                value = yield trap
            except BaseException as error:  # thrown in by the scheduler: the work's to handle
                trap = work.throw(error)
            else:
                trap = work.send(value)
    except StopIteration:
        return
