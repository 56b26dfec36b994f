"""Exit codes, and which of them an error means."""

from __future__ import annotations

from enum import IntEnum

from creamas_sc.errors import (
    AgentErrors,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    HandshakeError,
    HostLost,
    SlaveLost,
)
from creamas_sc.runtime.installation import how_to_install


class Exit(IntEnum):
    """The exit codes of the command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3  # of `status` only
    UNKNOWN = 4  # of `status` only
    UNREACHABLE = 69
    TIMED_OUT = 75
    DENIED = 77
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_CODES = """\
Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 69 daemon not reached,
75 timed out, 77 permission denied, 130 after Ctrl-C, 143 after SIGTERM.
The status command: 0 running, 3 not running, 4 unknown.
The verify command: 0 the same, 1 different, or failed.
The sweep command: 1 also if a run failed or was lost."""


class Failure(Exception):
    """The command cannot do what it was asked to do.

    Args:
        message: What is wrong and what to do, in one line.
    """

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


# The first match counts.
_CODES: tuple[tuple[tuple[type[BaseException], ...], Exit], ...] = (
    ((HostLost, SlaveLost), Exit.FAILED),
    ((HandshakeError, PermissionError), Exit.DENIED),
    ((DeadlineExceeded, TimeoutError), Exit.TIMED_OUT),
    ((ConnectionLost, ConnectionRefusedError), Exit.UNREACHABLE),
)


def explain(error: Exception) -> tuple[Exit, str]:
    """Return the exit code for an error, and the error in one line.

    Raises:
        Exception: ``error`` itself if it is a bug of this program.
    """
    if isinstance(error, Failure):
        return error.code, str(error)
    if not isinstance(error, (CreamasError, AgentErrors, OSError, ImportError)):
        raise error
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        text = f"this needs {error.name}, which this Python lacks: {how_to_install()}"
    if isinstance(error, AgentErrors):
        text = f"{error.message}: {next(iter(error.failures.values()), '')}"
    code = next((code for kinds, code in _CODES if isinstance(error, kinds)), Exit.FAILED)
    return code, " ".join(text.split()) or type(error).__name__
