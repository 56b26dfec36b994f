"""How a script ends that nothing catches the end of: a signal's, or an error's of ours.

Python turns Ctrl-C into KeyboardInterrupt, which trio, asyncio and ``with`` blocks take to the
main program; from there it would end in a traceback through all of them. SIGTERM ends a process
with no clean-up at all: here the first one is a Ctrl-C, and the second does what it always did.
An error of ours is told with the user's own lines, not with the steps in between.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.util import find_spec
from traceback import StackSummary, TracebackException, walk_tb
from types import FrameType, TracebackType
from typing import Any

from creamas_sc.errors import AgentErrors, CreamasError, unwrapped

__all__ = ["install_signal_handling"]

_terminated = False
_STEPS_BETWEEN = ("creamas_sc", "trio", "anyio", "asyncio", "concurrent")


def install_signal_handling() -> None:
    """Take care of this script's end; leaves alone whatever the user or a notebook has set.

    A process that ignores Ctrl-C, as slaves do, has somebody else to end it.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _tell_end


def _terminate(number: int, frame: FrameType | None) -> None:
    global _terminated
    _terminated = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Whoever handles Ctrl-C now, Python itself or the loop that runs, does the rest.
    signal.raise_signal(signal.SIGINT)


def _tell_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    ours = unwrapped(error)
    if isinstance(ours, (AgentErrors, CreamasError)):
        print("".join(_told_shortly(ours)), end="", file=sys.stderr)
    elif not _is_interrupt(error):
        sys.__excepthook__(kind, error, trace)
    elif _terminated:
        print("Terminated", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM)
    else:
        # Another one ends what is left, without a word.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("Interrupted", file=sys.stderr)
        if not isinstance(error, KeyboardInterrupt):  # else Python ends the process by SIGINT
            raise SystemExit(128 + signal.SIGINT)


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        others = [each for each in error.exceptions if not _is_interrupt(each)]
        # A Ctrl-C may strike a task, of a connection say, that others are waiting for.
        return len(others) < len(error.exceptions) and all(map(_is_ours, others))
    return isinstance(error, KeyboardInterrupt) or _is_upset(error)


def _is_ours(error: BaseException) -> bool:
    return isinstance(error, CreamasError)


def _is_upset(error: BaseException) -> bool:
    """Whether a second Ctrl-C struck within a library, which then could not go on in order."""
    context = error.__context__
    if not isinstance(error, RuntimeError) or context is None or not _is_interrupt(context):
        return False
    last = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)][-1:]
    return bool(last) and last[0].startswith(_folders_between())


def _told_shortly(error: BaseException) -> list[str]:
    told = TracebackException.from_exception(error)
    folders = _folders_between()
    for each in _chain(told):
        kept = [line for line in each.stack if not line.filename.startswith(folders)]
        each.stack = StackSummary.from_list(kept)
    return list(told.format())


def _chain(told: TracebackException) -> list[TracebackException]:
    """``told``, what led to it, and the members of groups among them."""
    linked = [told.__cause__, None if told.__suppress_context__ else told.__context__]
    return [
        told,
        *(e for link in (*linked, *(told.exceptions or ())) if link for e in _chain(link)),
    ]


def _folders_between() -> tuple[str, ...]:
    specs = (find_spec(name) for name in _STEPS_BETWEEN)
    return tuple(os.path.dirname(spec.origin) + os.sep for spec in specs if spec and spec.origin)
