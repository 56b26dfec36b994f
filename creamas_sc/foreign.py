"""What users' code raises, and what it and other processes say: any error, any text.

Such texts are cut to a stated length where they come in, so that none fills a frame, a log or the
memory on its way; and escaped where they are shown, so that none controls the terminal.
"""

from __future__ import annotations

import re
import signal
import threading
import traceback

TEXT_LENGTH = 2000
TRACEBACK_LENGTH = 20_000

# The control characters, and those that reorder what is around them or separate lines.
_CONTROLS = "\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_NOT_IN_LINES = re.compile(f"[\0-\x08\n-\x1f{_CONTROLS}]")
_NOT_IN_JSON = re.compile(f"[{_CONTROLS}]")


def is_ctrl_c(error: BaseException) -> bool:
    """Return whether ``error`` is a real Ctrl-C, not a KeyboardInterrupt that user code raised.

    Only a script's main thread gets a real one; slaves ignore the signal.
    """
    if isinstance(error, BaseExceptionGroup):  # from a nursery in user code
        return any(map(is_ctrl_c, error.exceptions))
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    )


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, shortened; the ``__str__`` of a user's class may raise anything."""
    try:
        return shorten(str(error))
    except BaseException as failure:
        if is_ctrl_c(failure):
            raise
        return "<exception str() failed>"  # what Python prints


def summary_of(error: BaseException) -> str:
    """Return the last lines of the traceback, which name the error; shortened."""
    try:
        return shorten("".join(traceback.format_exception_only(error)).strip())
    except BaseException as failure:
        if is_ctrl_c(failure):
            raise
        return "<an exception that cannot be printed>"


def traceback_of(error: BaseException) -> str:
    """Return the traceback as Python prints it, without its middle if it is long."""
    try:
        pieces = traceback.TracebackException.from_exception(error).format()
        return shorten("".join(map(shorten, pieces)), TRACEBACK_LENGTH)
    except BaseException as failure:
        if is_ctrl_c(failure):
            raise
        return "<the traceback cannot be printed>"


def shorten(text: str, length: int = TEXT_LENGTH) -> str:
    """Return ``text``, without its middle if it is longer than ``length``.

    The result is a plain str that can always be encoded.
    """
    if len(text) > length:
        half = length // 2
        left_out = f" [... {len(text) - 2 * half} characters ...] "
        text = f"{text[:half]}{left_out}{text[-half:]}"
    # Undecodable file names have surrogates.
    return str.encode(text, errors="backslashreplace").decode()


def shown(value: object) -> str:
    """Return the ``repr`` of a value that is wrong, for an error; shortened."""
    try:
        return f"{value!r:.100}"
    except Exception:  # a number of more digits than Python prints, or a user's class
        return f"a value of type {type(value).__name__}, which cannot be printed"


def printable(text: str) -> str:
    """Return ``text`` as one line: control characters other than tabs are escaped."""
    return _NOT_IN_LINES.sub(lambda found: repr(found[0])[1:-1], text)


def printable_json(document: str) -> str:
    """Return the same JSON document without the control characters that JSON leaves as they are."""
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
