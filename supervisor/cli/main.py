"""The entry point: runs a command line and turns signals and errors into exit codes.

Only the standard library is imported with this module, so that a Ctrl-C during the slow imports
below ends the command in one line, like any other.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType


class Terminated(KeyboardInterrupt):
    """A SIGTERM was received. Like a Ctrl-C it passes through all that handles errors of users."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code, as ``--help`` documents it.

    Args:
        argv: The words after the command's name; those of this process by default.
    """
    try:
        with _sigterm_raises():
            return _run(sys.argv[1:] if argv is None else list(argv))
    except Terminated:
        word, number = "terminated", signal.SIGTERM
    except KeyboardInterrupt:
        word, number = "interrupted", signal.SIGINT
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"creamas-supervisor: {word}", file=sys.stderr)
    return 128 + number


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Raise `Terminated` at the first SIGTERM; a second one ends the process as usual."""

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(words: list[str]) -> int:
    from creamas_sc.runtime.descriptors import open_standard_descriptors
    from supervisor.cli.exits import Exit
    from supervisor.cli.output import set_up

    open_standard_descriptors()
    set_up()
    try:
        return _command(words)
    except BrokenPipeError:
        # As with ``| head``: the reader has what it wanted. What is still buffered has nowhere
        # to go, and Python would complain about it at exit.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        return Exit.DONE


def _command(words: list[str]) -> int:
    from supervisor.cli.exits import Exit, explain
    from supervisor.cli.output import note

    try:
        from cyclopts import CycloptsError, UnknownCommandError

        from supervisor.cli.app import build, unknown_command
    except ModuleNotFoundError as error:  # an installation for clients only
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
        text = " ".join(str(error).split())
        if isinstance(error, UnknownCommandError) and error.unused_tokens:
            text = unknown_command(error.unused_tokens[0])
        end = "" if text.endswith((".", "?")) else "."
        note(f"{text}{end} Try: creamas-supervisor{verb} --help")
        return Exit.USAGE
    except SystemExit as error:  # raised by rich if the reader of a help page has gone
        raise BrokenPipeError from error
    except BrokenPipeError:  # of standard output: connections raise `ConnectionLost`
        raise
    except Exception as error:
        code, line = explain(error)
        note(line)
        return code
