"""The messages between a supervisor and the processes that it works for.

They travel as dicts (see `supervisor.root` for the methods that take and return them), so these are
the types of those dicts, for both ends.
"""

from __future__ import annotations

import signal as signals
from typing import TypedDict

__all__ = [
    "ActorExit",
    "ActorOrder",
    "ExitStatus",
    "ProcessInfo",
    "ProcessOrder",
    "StartedActor",
    "StopResult",
    "describe_exit",
]


class ProcessOrder(TypedDict):
    """What a process is to run, and where.

    Attributes:
        entry: ``module:function``; see `supervisor.actors.entry_runner`.
        spec: Passed to the entry.
        environ, cwd, path: Its environment, working folder and ``sys.path``. These are bytes of the
            operating system, one character each: not all of them are UTF-8.
    """

    entry: str
    spec: bytes
    environ: dict[str, str]
    cwd: str
    path: list[str]


class ActorOrder(ProcessOrder):
    """An actor to be started.

    Attributes:
        slot: Identifies the actor in all later messages.
        name: For people: in messages and in the output of ``ps``.
    """

    slot: str
    name: str


class StartedActor(TypedDict):
    """An actor that is ready; ``info`` is what its entry passed to ``ready()``."""

    slot: str
    pid: int
    info: bytes


class ExitStatus(TypedDict):
    """How a process ended: by itself, by a signal, or (both None) in a way nobody could see.

    Attributes:
        error: What its entry raised, as text; None if it raised nothing.
    """

    exit_code: int | None
    signal: int | None
    error: str | None


class _ActorEnd(ExitStatus):
    slot: str
    pid: int
    traceback: str


class ActorExit(_ActorEnd):
    """An actor has ended: the supervisor's event ``exited``.

    Attributes:
        expected: Its end was requested.
        returned: Its entry returned, and raised nothing.
    """

    expected: bool
    returned: bool


class StopResult(_ActorEnd):
    """How the stop of one actor went.

    Attributes:
        seconds: From the request to the end.
        graceful: The entry returned and the process exited with 0.
        ladder: The last stage that was needed; see `supervisor.actors.escalation.StopStage`.
        payload: What the entry returned; None if it did not return.
    """

    seconds: float
    graceful: bool
    ladder: str
    payload: bytes | None


class ProcessInfo(TypedDict):
    """A running process of a simulation."""

    slot: str
    name: str
    pid: int


def describe_exit(exit_code: int | None, signal: int | None) -> str:
    """How a process ended, as the predicate of a sentence."""
    if signal is not None:
        known = signal in set(signals.Signals)  # real-time signals have no names
        return f"was killed by {signals.Signals(signal).name if known else f'signal {signal}'}"
    if exit_code is not None:
        return f"exited with code {exit_code}"
    return "ended in an unknown way"
