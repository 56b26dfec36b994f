"""What users' code raises, and what it and other processes say: any error, any text.

Such texts are cut to a stated length where they come in, so that none fills a frame, a log or the
memory on its way; and escaped where they are shown, so that none controls the terminal.
"""

from __future__ import annotations

import linecache
import opcode
import os
import re
import signal
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

TEXT_LENGTH = 2000
TRACEBACK_LENGTH = 20_000
_RAISE = opcode.opmap["RAISE_VARARGS"]
# Their frames say nothing to users; asyncio's say whether its loop was running.
_LIBRARIES = ("creamas_sc", "supervisor", "trio", "anyio", "outcome", "concurrent", "msgpack")

# Of a TracebackException: the error's text, and those of a SyntaxError.
_TEXTS = ("_str", "msg", "text")

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
        last = traceback.TracebackException(type(error), error, None, compact=True)
        return shorten("".join(_with_short_texts(last).format_exception_only()).strip())
    except BaseException as failure:
        if is_ctrl_c(failure):
            raise
        return "<an exception that cannot be printed>"


def traceback_of(error: BaseException, short: bool = False) -> str:
    """Return the traceback as Python prints it, without its middle if it is long.

    Args:
        short: Cut the tracebacks before (see `cut_tracebacks`); "" if then there is none.
    """
    try:
        if short:
            cut_tracebacks(error)
            if _says_all(error):
                return ""
        _name_only_relative_files(error)
        pieces = _with_short_texts(traceback.TracebackException.from_exception(error)).format()
        return shorten("".join(map(shorten, pieces)), TRACEBACK_LENGTH)
    except BaseException as failure:
        if is_ctrl_c(failure):
            raise
        return "<the traceback cannot be printed>"


def _with_short_texts(whole: traceback.TracebackException) -> traceback.TracebackException:
    """Shorten the texts in what is to be formatted, for which Python takes a minute in 180 MB."""
    parts: list[traceback.TracebackException] = [whole]
    for each in parts:  # it grows
        for name in _TEXTS:
            setattr(each, name, _shortened(getattr(each, name, None)))
        if isinstance(notes := each.__notes__, list):
            each.__notes__ = [_shortened(note) for note in notes]
        linked = (each.__cause__, each.__context__, *(each.exceptions or ()))
        parts += [part for part in linked if part is not None]
    return whole


def _shortened(text: Any) -> Any:
    # A user's own kind of text may have no length.
    return shorten(str.__str__(text)) if isinstance(text, str) else text


def cut_tracebacks(error: BaseException, *more: str) -> None:
    """Cut the frames of libraries from the tracebacks of an error, its causes and its parts.

    The user's own frames stay, and the last one of an error that creamas_sc has not raised on
    purpose, as it may be a mistake there. An error that creamas_sc has raised and caught is dropped
    as a cause: the other one says what it says.

    Args:
        more: Names of more libraries.
    """
    folders = library_folders("asyncio", *more)
    for each in reversed(_chain(error)):
        cut_traceback(each, folders)
        if each.__context__ is not None and _says_all(each.__context__):
            each.__context__ = None
        if each.__cause__ is not None and _says_all(each.__cause__):
            each.__cause__ = None


def _chain(error: BaseException) -> list[BaseException]:
    """The error, its causes and its parts."""
    chain, found = [error], {id(error)}
    for each in chain:  # it grows
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        for linked in (each.__cause__, each.__context__, *parts):
            if linked is not None and id(linked) not in found:
                found.add(id(linked))
                chain.append(linked)
    return chain


def _name_only_relative_files(error: BaseException) -> None:
    """Have its traceback show no lines of files that have a relative path, as compiled modules'.

    They would be looked for in the working folder, where another user may have put a file of that
    name, or a pipe from which to read takes forever.
    """
    for each in _chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            file = frame.f_code.co_filename
            if not os.path.isabs(file) and not file.startswith("<"):
                linecache.cache.setdefault(file, (0, None, [], file))


def cut_traceback(error: BaseException, folders: tuple[str, ...] = ()) -> None:
    """Cut the frames of code in ``folders``, by default that of libraries, from its traceback."""
    folders = folders or library_folders()
    whole, trace = [], error.__traceback__
    while trace is not None:
        whole.append(trace)
        trace = trace.tb_next
    kept = [each for each in whole if not each.tb_frame.f_code.co_filename.startswith(folders)]
    if whole and whole[-1] not in kept and not (_is_ours(error) or _is_raised_here(whole[-1])):
        kept.append(whole[-1])
    if len(kept) == len(whole):
        return
    for each in reversed(kept):
        # Where a signal strikes before a function's first line, there is none.
        line = each.tb_lineno or each.tb_frame.f_code.co_firstlineno
        trace = TracebackType(trace, each.tb_frame, each.tb_lasti, line)
    error.__traceback__ = trace


def _says_all(error: BaseException) -> bool:
    """Whether its text is all that an error of creamas_sc with a cut traceback says."""
    more = (error.__traceback__, error.__cause__, error.__context__)
    return _is_ours(error) and more == (None, None, None) and not hasattr(error, "__notes__")


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__ == "creamas_sc.errors"


def _is_raised_here(trace: TracebackType) -> bool:
    """Whether the frame is of creamas_sc and is at a ``raise``."""
    code = trace.tb_frame.f_code
    here = code.co_filename.startswith(os.path.dirname(__file__) + os.sep)
    return here and code.co_code[trace.tb_lasti] == _RAISE


def library_folders(*more: str) -> tuple[str, ...]:
    """How the paths of the files of libraries begin, as far as these are imported."""
    names = (*_LIBRARIES, *more)
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    # msgpack's compiled part gives its files relative paths.
    return "msgpack/", *(os.path.dirname(file) + os.sep for file in files if file)


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
