"""The messages between a supervisor, its owner, hosts and clients.

They travel as dicts (see `supervisor.root` for the methods that take and return them), so these are
the types of those dicts, for both ends.
"""

from __future__ import annotations

import os
import signal as signals
from typing import Any, NotRequired, TypedDict

# Slaves of one simulation.
MAX_SLAVES = 512


class ProcessOrder(TypedDict):
    """What a process is to run, and where.

    Attributes:
        entry: ``module:function``; see `supervisor.actors.entry_runner`.
        spec: Passed to the entry.
        environ, cwd, path: Its environment, working folder and ``sys.path``; see `os_bytes`.
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
        node: Name of the node on which it is to run; missing or empty for this machine.
    """

    slot: str
    name: str
    node: NotRequired[str]


class StartedActor(TypedDict):
    """An actor that is ready; ``info`` is what its entry passed to ``ready()``."""

    slot: str
    pid: int
    info: bytes


class ExitStatus(TypedDict):
    """How a process ended: by itself, by a signal, or (both None) in an unknown way.

    Attributes:
        error: What its entry raised, as text; None if it raised nothing.
    """

    exit_code: int | None
    signal: int | None
    error: str | None


class ActorEnd(ExitStatus):
    """The part that is the same in an `ActorExit` and a `StopResult`."""

    slot: str
    pid: int
    traceback: str


class ActorExit(ActorEnd):
    """An actor has ended: the supervisor's event ``exited``.

    Attributes:
        expected: Its end was requested.
        returned: Its entry returned, and raised nothing.
    """

    expected: bool
    returned: bool


class StopResult(ActorEnd):
    """How the stop of one actor went.

    Attributes:
        seconds: From the request to the end.
        graceful: The entry returned and the process exited with 0.
        ended_by: The last stage that was needed; see `supervisor.actors.escalation.StopStage`.
        payload: What the entry returned; None if it did not return.
    """

    seconds: float
    graceful: bool
    ended_by: str
    payload: bytes | None


class ProcessInfo(TypedDict):
    """A running process of a simulation; ``node`` is empty for this machine."""

    slot: str
    name: str
    pid: int
    node: str


class NodeSettings(TypedDict):
    """Where a supervisor listens for nodes.

    Attributes:
        host, port: Port 0 is any free one.
        key: 32 bytes, which every node has to know.
        key_file: Where the key is kept, for people; missing if it is not.
        lease: Seconds after which a node that was not heard is lost.
    """

    host: str
    port: int
    key: bytes
    key_file: NotRequired[str]
    lease: float


class NodeAbout(TypedDict):
    """What a node says of itself when it joins.

    Attributes:
        name: What it wants to be called.
        instance: Made up by its process, so that it is known again when it joins again.
        host: Address at which its slaves listen.
        pid: Of its process.
        cores, memory: What it offers; memory in bytes.
        engine: The id that its engine knows it by; empty without one.
        version, python: Of creamas_sc, and of Python ("3.12").
    """

    name: str
    instance: str
    host: str
    pid: int
    cores: int
    memory: int
    engine: str
    version: str
    python: str


class NodeInfo(NodeAbout):
    """A node that has joined.

    Attributes:
        processes: How many run on it, of all simulations.
        heard: Seconds since it was heard.
        since: When it joined, in seconds since 1970.
    """

    processes: int
    heard: float
    since: float


class Code(TypedDict):
    """The user's code that slaves on nodes load.

    Attributes:
        simulation: Its id.
        files: By their names in the simulation's folder: when they were changed, in ns, and what
            is in them. See `creamas_sc.runtime.code_versions`.
    """

    simulation: str
    files: dict[str, tuple[int, bytes]]


class HostSummary(TypedDict):
    """A simulation of a daemon, in short.

    Attributes:
        state: "starting", "running", "closing" or "ended".
        pid: Of its host; None before that has started.
        since: Seconds since 1970.
        cause: Why it ended; empty while it lives.
        host: What its host says of itself; None if it does not answer.
    """

    name: str
    state: str
    pid: int | None
    since: float
    cause: str
    host: dict[str, Any] | None


class HostDetails(HostSummary):
    """All that a daemon knows of a simulation.

    Attributes:
        about: What its creator said of it.
        cwd, path, environ: As in the host's `ProcessOrder`.
        stop_results: Of its processes that were stopped.
        expected: Whether its end was requested, or its host returned.
    """

    about: dict[str, Any]
    cwd: str
    path: list[str]
    environ: dict[str, str]
    processes: list[ProcessInfo]
    stop_results: list[StopResult]
    expected: bool


class NamedStopResult(StopResult):
    """The same with the name of the simulation, of which the actor was the host."""

    name: str


class HostStatus(TypedDict):
    """What the daemon knows of a simulation's host.

    Attributes:
        ended: Whether it has ended.
        expected: Whether somebody closed or killed it.
        cause: How it ended.
    """

    ended: bool
    expected: bool
    cause: str


class DaemonSettings(TypedDict):
    """What makes a supervisor a daemon's.

    Attributes:
        log: Its log file; the folder of that name, without suffix, gets a log for each simulation.
        console: Whether it logs on standard error too.
        pid: Of the process that owns the daemon.
        nodes: Where it listens for nodes; None if it does not.
    """

    name: str
    socket: str
    log: str
    console: bool
    pid: int
    nodes: NodeSettings | None


def describe_exit(exit_code: int | None, signal: int | None) -> str:
    """How a process ended, as the predicate of a sentence."""
    if signal is not None:
        known = signal in set(signals.Signals)  # real-time signals have no names
        return f"was killed by {signals.Signals(signal).name if known else f'signal {signal}'}"
    if exit_code is not None:
        return f"exited with code {exit_code}"
    return "ended in an unknown way"


def os_bytes(text: str) -> str:
    """A path or variable as it travels: its bytes, one character each, as not all are UTF-8."""
    return os.fsencode(text).decode("latin-1")


def os_text(plain: str) -> str:
    """The reverse of `os_bytes`."""
    return os.fsdecode(plain.encode("latin-1"))
