"""The border to what users wrote: whatever their code raises is told, and ends nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    BadValue,
    CallRefused,
    CreamasError,
    unwrapped,
)
from creamas_sc.runtime.nurseries import cancellation_in

__all__ = ["border", "in_words"]

# Frames of these packages do not make an error the user's.
_NOT_THE_USERS = frozenset({"anyio", "creamas_sc", "outcome", "trio", *sys.stdlib_module_names})
# Of an error's text, in progress and events.
MAX_TEXT_LENGTH = 2000
NAMED_FAILURES = 3


@contextmanager
def border(address: str, *, within_user_code: bool = False) -> Iterator[None]:
    """Make of whatever the block raises an error that can be told to a client.

    Args:
        address: Of the master environment, whose code it is.
        within_user_code: All of the block is the user's, down to what it calls of ours.

    Raises:
        BadValue, BadArguments: A ValueError or TypeError of our own code.
        AgentError: Anything that came out of the user's code, SystemExit included.
        CreamasError, AgentErrors: As they are.
    """
    try:
        yield
    except BaseException as raised:  # user code may raise anything, SystemExit included
        cancelled = cancellation_in(raised)
        if cancelled is not None:
            raise cancelled from None
        error = unwrapped(raised)
        if isinstance(error, CallRefused) and within_user_code:
            raise AgentError.from_exception(address, error) from error
        if isinstance(error, (CreamasError, AgentErrors, GeneratorExit)):
            raise error  # noqa: B904 - as it is
        raise _told(address, raised, within_user_code or _is_the_users(raised)) from raised


def _told(address: str, error: BaseException, users: bool) -> CreamasError:
    if not users:
        if isinstance(error, ValueError):
            return BadValue(str(error))
        if isinstance(error, TypeError):
            return BadArguments(str(error))
    return AgentError.from_exception(address, error)


def _is_the_users(error: BaseException) -> bool:
    """Whether ``error`` passed through code that is neither ours nor the library's."""
    entry = error.__traceback__
    while entry is not None:
        module = str(entry.tb_frame.f_globals.get("__name__"))
        if module.partition(".")[0] not in _NOT_THE_USERS:
            return True
        entry = entry.tb_next
    return False


def in_words(error: BaseException) -> str:
    """``error`` in one text for a reader, with the first of those that a group holds."""
    if isinstance(error, BaseExceptionGroup):
        named = [in_words(each) for each in error.exceptions[:NAMED_FAILURES]]
        text = f"{error.message}; {'; '.join(named)}"
    elif isinstance(error, CreamasError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return text[:MAX_TEXT_LENGTH]
