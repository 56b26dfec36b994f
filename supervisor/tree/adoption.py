"""Reaps what an actor has adopted: processes below it whose own parents have ended.

An actor is a subreaper, so a program that an agent's program started in the background becomes the
actor's child, for which nothing in it waits. Children that the actor's own code starts must be left
to that code, which wants their exit codes. The kernel does not tell the two apart, so
`note_children` has the functions that start processes note what they started.
"""

from __future__ import annotations

import _posixsubprocess
import functools
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from supervisor.tree import linux

# Whatever else starts processes uses these. C code that does so itself waits at once, as a rule.
_STARTS: tuple[tuple[Any, str], ...] = (
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (_posixsubprocess, "fork_exec"),
    (subprocess, "_fork_exec"),
)
# Pids of children that this process's own code has started; None if they are not noted.
_own: set[int] | None = None


def note_children() -> None:
    """Note from now on which children this process's own code starts."""
    global _own
    _own = set()
    for module, name in _STARTS:
        setattr(module, name, _noted(getattr(module, name), _own))


def _noted(start: Callable[..., Any], own: set[int]) -> Callable[..., Any]:
    @functools.wraps(start)
    def noted(*args: Any, **kwargs: Any) -> Any:
        started = start(*args, **kwargs)
        own.add(started[0] if isinstance(started, tuple) else started)
        return started

    return noted


def reap(candidates: set[int]) -> set[int]:
    """Reap the adopted children that have ended, if they were among ``candidates``.

    Returns:
        Those to pass next time: a process is reaped at the second look, as one that was just
        started may not be noted yet.
    """
    if _own is None:
        return set()
    for each in list(_own):  # other threads may start processes meanwhile
        if _ended(each) is None:
            _own.discard(each)
    try:
        ended = {each for each in linux.children() if _ended(each)} - _own
    except OSError:  # no descriptor is left to look with
        return candidates
    for each in ended & candidates:
        with suppress(ChildProcessError):  # somebody has waited for it after all
            os.waitpid(each, os.WNOHANG)
    return ended - candidates


def _ended(pid: int) -> bool | None:
    """Whether a child has ended and is not reaped yet; None if it is no child of this process."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return None
