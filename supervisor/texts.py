"""Texts of errors as they are told and kept: bounded, whatever was raised."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

__all__ = ["describe", "enumerate_first", "shorten"]

TEXT_LENGTH = 2000
TRACEBACK_LENGTH = 20_000
NAMED = 3
_OUR_ERRORS = "creamas_sc.errors"


def describe(error: BaseException) -> str:
    """``error`` as Python prints it; of our own ones, which say what is wrong, only the text.

    They come one within the other, from the slave through its host to the client.
    """
    if type(error).__module__ == _OUR_ERRORS and str(error):
        return shorten(str(error))
    return shorten(traceback.format_exception_only(error)[0].strip())


def shorten(text: str, length: int = TEXT_LENGTH) -> str:
    """``text`` without its middle where it is longer; it can be sent whatever is in it."""
    text = text.encode(errors="backslashreplace").decode()  # undecodable file names have surrogates
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"


def enumerate_first(names: Sequence[str]) -> str:
    """The first of ``names``, and how many more there are."""
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
