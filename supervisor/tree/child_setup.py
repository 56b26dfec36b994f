"""The first and last acts of a process that the zygote forked."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

from supervisor.tree import linux

# The zygote has handlers for these. They are blocked while it forks and until `set_up` has reset
# them: a handler in the child would write into the zygote's pipe.
ZYGOTE_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)


def set_up(zygote_pid: int, keep: Iterable[int], name: str) -> None:
    """Make this process die with the zygote, and drop what it inherited from it.

    Args:
        zygote_pid: The parent; when it ends the kernel kills this process, however stuck it is.
        keep: The descriptors to keep open, beside standard input, output and error.
        name: What ``ps`` shows.
    """
    linux.die_with_parent(zygote_pid, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    for number in ZYGOTE_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ZYGOTE_SIGNALS)
    # A new process group: a user's os.killpg(0, ...) must not hit the whole tree.
    os.setpgid(0, 0)
    linux.name_process(name)
    linux.keep_freed_memory()
    close_all_but({0, 1, 2, *keep})
    # The zygote's exit handlers must not run here.
    atexit._clear()
    gc.enable()
    for stream in (sys.stdout, sys.stderr):
        # A line is one write, so that lines of several processes stay whole.
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in ``keep``.

    Those that are open are looked up: to try all that may be takes seconds where the limit is high
    and the kernel has no call for a range.
    """
    for fd in {int(name) for name in os.listdir("/proc/self/fd")}.difference(keep):
        with suppress(OSError):  # the listing's own
            os.close(fd)


def run_and_exit(body: Callable[[], int]) -> NoReturn:
    """Run ``body`` and exit with the code that it returns.

    No error of ``body`` unwinds into the zygote's frames.
    """
    code = 1
    try:
        code = body()
    except BaseException:  # the outermost frame of this process: printed, and seen in the exit code
        traceback.print_exc()
    finally:
        exit_now(code)


def exit_now(code: int) -> NoReturn:
    """End this process here and now; nothing is unwound."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed, or replaced by the user
            code = code or 1
    os._exit(code)
