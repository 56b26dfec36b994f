"""Runs a command line: signals, readers that go away and errors become exit codes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from supervisor.cli.exits import Exit, Terminated, explain
from supervisor.cli.output import ReaderGone, flush, note

__all__ = ["command"]


def command(words: list[str]) -> int:
    """Do what the words after the command's name say; its exit code."""
    try:
        with _terminable():
            try:
                code = _run(words)
                flush()
            except ReaderGone:
                return _close_stdout()
            return code
    except KeyboardInterrupt:
        note("interrupted")
        return Exit.INTERRUPTED
    except Terminated:
        note("terminated")
        return Exit.TERMINATED


def _run(words: list[str]) -> int:
    try:
        from cyclopts import CycloptsError

        from supervisor.cli.app import build
    except ModuleNotFoundError as error:  # of an installation for clients only
        code, line = explain(error)
        note(line)
        return code
    app = build()
    try:
        if not words:
            app.help_print([], console=app.error_console)
            return Exit.USAGE
        return int(app(words) or 0)
    except CycloptsError as error:
        verb = "".join(f" {word}" for word in error.command_chain or ())
        note(f"{_line(str(error))} Try: creamas-supervisor{verb} --help")
        return Exit.USAGE
    except SystemExit as error:  # rich's, where the reader of a help page has gone
        raise ReaderGone from error
    except Exception as error:
        code, line = explain(error)
        note(line)
        return code


def _line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _terminable() -> Iterator[None]:
    """Make the first SIGTERM an exception; the second ends the process as ever."""
    before = signal.getsignal(signal.SIGTERM)
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _close_stdout() -> int:
    """After ``| head``: the reader has what it wanted, and what is left has nowhere to go."""
    with open("/dev/null", "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    return Exit.DONE
