"""How a script that owns a simulation ends: SIGTERM as Ctrl-C, and short tracebacks.

Python turns Ctrl-C into KeyboardInterrupt, which trio, asyncio and ``with`` blocks carry to the
main program; uncaught there, it would print a traceback through all of them. SIGTERM ends a
process without any clean-up: here the first SIGTERM acts as a Ctrl-C, and a second one as usual. An
uncaught error of creamas_sc is printed with the user's own lines only.

Installed where a script starts to own something that must be closed: by the background loop, and
by ``async with MultiEnvironment``. Clients and imports install nothing.
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

_LIBRARIES = ("creamas_sc", "trio", "anyio", "asyncio", "concurrent")
_terminated = False


def install_signal_handling() -> None:
    """Install the SIGTERM handler and the excepthook, unless the user or a notebook has set one.

    Does nothing outside the main thread, nor in a process that ignores Ctrl-C: a slave, say, which
    is ended by others. After a first SIGTERM the next one stays as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and not _terminated:
        signal.signal(signal.SIGTERM, _terminate)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _report_uncaught


def _terminate(number: int, frame: FrameType | None) -> None:
    global _terminated
    _terminated = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The current handler of Ctrl-C, Python's own or the running loop's, does the rest.
    signal.raise_signal(signal.SIGINT)


def _report_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> Any:
    cause = unwrapped(error)
    if isinstance(cause, (AgentErrors, CreamasError)):
        print("".join(_short_traceback(cause)), end="", file=sys.stderr)
    elif not _is_interrupt(error):
        sys.__excepthook__(kind, error, trace)
    elif _terminated:
        print("Terminated", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM)
    else:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # another Ctrl-C ends the process at once
        print("Interrupted", file=sys.stderr)
        if not isinstance(error, KeyboardInterrupt):  # else Python ends the process by SIGINT
            raise SystemExit(128 + signal.SIGINT)


def _is_interrupt(error: BaseException) -> bool:
    """Return whether a Ctrl-C led to ``error``."""
    if isinstance(error, BaseExceptionGroup):
        others = [each for each in error.exceptions if not _is_interrupt(each)]
        # It may strike the task of a connection, and so fail the calls that wait for it.
        return len(others) < len(error.exceptions) and all(
            isinstance(each, CreamasError) for each in others
        )
    return isinstance(error, KeyboardInterrupt) or _broke_library(error)


def _broke_library(error: BaseException) -> bool:
    """Return whether a second Ctrl-C struck inside a library, and broke an internal check."""
    context = error.__context__
    if not isinstance(error, RuntimeError) or context is None or not _is_interrupt(context):
        return False
    last = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)][-1:]
    return bool(last) and last[0].startswith(_library_folders())


def _short_traceback(error: BaseException) -> list[str]:
    """Return the traceback of ``error`` and its causes, without the libraries' lines."""
    report = TracebackException.from_exception(error)
    folders = _library_folders()
    pending = [report]
    while pending:
        each = pending.pop()
        each.stack = StackSummary.from_list(
            [line for line in each.stack if not line.filename.startswith(folders)]
        )
        context = None if each.__suppress_context__ else each.__context__
        pending += [e for e in (each.__cause__, context, *(each.exceptions or ())) if e]
    return list(report.format())


def _library_folders() -> tuple[str, ...]:
    specs = (find_spec(name) for name in _LIBRARIES)
    return tuple(os.path.dirname(spec.origin) + os.sep for spec in specs if spec and spec.origin)
