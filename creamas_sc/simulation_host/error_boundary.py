"""The boundary around users' code: its errors are reported to a client, and end nothing else."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    BadValue,
    CallRefused,
    CreamasError,
    enumerate_first,
    unwrapped,
)
from creamas_sc.foreign import shorten, text_of
from creamas_sc.runtime.nurseries import reraise_cancellation

# Frames of these packages do not make an error the user's.
_NOT_THE_USERS = frozenset({"anyio", "creamas_sc", "outcome", "trio", *sys.stdlib_module_names})


@contextmanager
def error_boundary(address: str, *, within_user_code: bool = False) -> Iterator[None]:
    """Turn any exception of the block into an error that can be sent to a client.

    Args:
        address: Of the master environment, which stands for the user's code.
        within_user_code: The whole block is the user's, including the calls it makes of this
            package.

    Raises:
        BadValue, BadArguments: A ValueError or TypeError of this package's own code.
        AgentError: Anything that came out of the user's code, SystemExit included.
        CreamasError, AgentErrors: As they are.
    """
    try:
        yield
    except BaseException as raised:  # user code may raise anything, SystemExit included
        reraise_cancellation(raised)
        error = unwrapped(raised)
        if isinstance(error, CallRefused) and within_user_code:
            raise AgentError.from_exception(address, error) from error
        if isinstance(error, (CreamasError, AgentErrors)):
            raise error  # noqa: B904 - as it is
        if not within_user_code and not _passed_through_user_code(raised):
            if isinstance(raised, ValueError):
                raise BadValue(text_of(raised)) from raised
            if isinstance(raised, TypeError):
                raise BadArguments(text_of(raised)) from raised
        raise AgentError.from_exception(address, raised) from raised


def _passed_through_user_code(error: BaseException) -> bool:
    """Whether a frame of neither this package nor its libraries is in the traceback."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    modules = (str(frame.f_globals.get("__name__")) for frame in frames)
    return any(module.partition(".")[0] not in _NOT_THE_USERS for module in modules)


def error_text(error: BaseException) -> str:
    """``error`` as one text for people, with the first of those that a group holds."""
    if isinstance(error, BaseExceptionGroup):
        text = f"{error.message}; {enumerate_first([error_text(e) for e in error.exceptions])}"
    elif isinstance(error, CreamasError):
        text = text_of(error)
    else:
        text = f"{type(error).__name__}: {text_of(error)}"
    return shorten(text)
