"""How a script that owns a simulation ends: SIGTERM as Ctrl-C, and short tracebacks.

Python turns Ctrl-C into KeyboardInterrupt, which trio, asyncio and ``with`` blocks carry to the
main program; uncaught there, it would print a traceback through all of them. SIGTERM ends a
process without any clean-up: here the first SIGTERM acts as a Ctrl-C, and a second one as usual. An
uncaught error is shown with the user's own lines only, in notebooks too. A process that the script
forks owns nothing of this: there SIGTERM does what it does in any Python process.

Installed where a script starts to own something that must be closed: by the background loop, and
by ``async with MultiEnvironment``. Clients and imports install nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from traceback import walk_tb
from types import FrameType, TracebackType
from typing import Any

from creamas_sc.errors import AgentErrors, CreamasError, unwrapped
from creamas_sc.foreign import cut_tracebacks, library_folders

_terminated = False
# The signal mask of a thread that forks, as it was before.
_before = threading.local()


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
        _leave_in_children()
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _report_uncaught
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((Exception,), _show_in_cell)


@contextmanager
def ctrl_c_deferred() -> Iterator[None]:
    """Have a Ctrl-C that comes in the block, which is short, strike at its end.

    In the middle of what locks in Python code, as most of `threading` and `concurrent.futures` do,
    it could leave a lock behind that another thread waits for without end.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is None:  # one that Python cannot set
        yield
        return
    struck: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: struck.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if struck:
            signal.raise_signal(signal.SIGINT)


def _show_in_cell(
    shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None
) -> None:
    """Show an error in a notebook or IPython as it is shown in a script."""
    cut_tracebacks(error, "IPython")
    shell.showtraceback((kind, error, error.__traceback__), tb_offset=0)


def _terminate(number: int, frame: FrameType | None) -> None:
    global _terminated
    _terminated = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The current handler of Ctrl-C, Python's own or the running loop's, does the rest.
    signal.raise_signal(signal.SIGINT)


@cache
def _leave_in_children() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


def _before_fork() -> None:
    # Else a SIGTERM that the child gets before it has left the handler would be lost there.
    _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)


def _in_child() -> None:
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)


def _report_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> Any:
    cause = unwrapped(error)
    ours = isinstance(cause, (AgentErrors, CreamasError))
    if ours or not _is_interrupt(error):
        shown = cause if ours else error
        cut_tracebacks(shown)
        sys.__excepthook__(type(shown), shown, shown.__traceback__)
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
    return bool(last) and last[0].startswith(library_folders())
