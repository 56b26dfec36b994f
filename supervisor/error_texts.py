"""Texts of errors as they are sent and kept: bounded, even if the error is not."""

from __future__ import annotations

import traceback

TEXT_LENGTH = 2000
TRACEBACK_LENGTH = 20_000
_OUR_ERRORS = "creamas_sc.errors"


def describe(error: BaseException) -> str:
    """``error`` as Python prints it; for errors of `creamas_sc` only their text.

    Those say what is wrong, and one becomes part of the next on the way from a slave to a client.
    """
    if type(error).__module__ == _OUR_ERRORS and str(error):
        return shorten(str(error))
    return shorten(traceback.format_exception_only(error)[0].strip())


def shorten(text: str, length: int = TEXT_LENGTH) -> str:
    """``text``, without its middle if it is longer than ``length``; it can always be encoded."""
    text = text.encode(errors="backslashreplace").decode()  # undecodable file names have surrogates
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
