"""Every error that creamas_sc raises on purpose, and how errors are sent over a connection.

    CreamasError
    +-- EncodeError, DecodeError       a value cannot be sent, received bytes cannot be decoded
    +-- ProtocolError                  the peer broke the frame protocol
    +-- HandshakeError                 the peer does not belong to this simulation
    +-- ConnectionLost                 the connection ended during a call
    |   |-- SlaveLost                  ... because the slave's process ended
    |   `-- HostLost                   ... because a daemon's host ended, with its simulation
    +-- DeadlineExceeded               a timeout passed
    |   `-- StepOverran                ... in a step, whose other results are kept
    +-- CallRefused                    the callee refused before any user code ran
    |   `-- UnknownAgent, UnknownSimulation, NotExposed, BadArguments, BadValue, LoadError
    +-- AgentError                     user code raised
    +-- StartError                     a slave or supervisor did not start
    +-- RecordError                    a step could not be written to the record
    `-- NoSlaves                       a MultiEnvironment without slaves was asked for some
    AgentErrors                        a group of AgentError, with the others' results

``may_have_run`` of a failed call says whether a retry could do the work twice.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias

from creamas_sc.foreign import shorten, summary_of, text_of, traceback_of

__all__ = [
    "AgentError",
    "AgentErrors",
    "BadArguments",
    "BadValue",
    "CallRefused",
    "ConnectionLost",
    "CreamasError",
    "DeadlineExceeded",
    "DecodeError",
    "EncodeError",
    "HandshakeError",
    "HostLost",
    "LoadError",
    "NoSlaves",
    "NotExposed",
    "ProtocolError",
    "RecordError",
    "SlaveLost",
    "StartError",
    "StepOverran",
    "UnknownAgent",
    "UnknownSimulation",
]


# What the agents that did not fail returned: in order, or by address.
Results: TypeAlias = Sequence[Any] | Mapping[str, Any]


class CreamasError(Exception):
    """Base of all errors raised on purpose.

    A subclass lists in ``fields`` the attributes that are sent with it; each is a keyword of its
    constructor.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    may_have_run: bool = False

    def __str__(self) -> str:
        # KeyError, a base of some subclasses, would quote the message.
        return str(self.args[0]) if self.args else ""


class EncodeError(CreamasError, TypeError):
    """A value cannot be sent; ``type_name`` is its type and ``path`` its place."""

    fields = ("type_name", "path")

    def __init__(self, message: str, *, type_name: str = "", path: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.path = path


class DecodeError(CreamasError, ValueError):
    """Bytes that are not an encoded value, or that need a class which this process lacks."""


class ProtocolError(CreamasError):
    """The peer sent something that the frame protocol does not allow."""


class HandshakeError(CreamasError, ConnectionError):
    """The peer could not prove that it belongs to this simulation."""


class ConnectionLost(CreamasError, ConnectionError):
    """The connection ended while a call was in flight, or could not be made."""

    fields: ClassVar[tuple[str, ...]] = ("address", "may_have_run")

    def __init__(self, message: str, *, address: str = "", may_have_run: bool = True) -> None:
        super().__init__(message)
        self.address = address
        self.may_have_run = may_have_run


class SlaveLost(ConnectionLost):
    """A slave's process ended; ``exit_code`` and ``signal`` are None if unknown.

    Attributes:
        node: On which it ran; empty for the machine of its multi-environment, and if unknown.
    """

    fields = ("address", "pid", "exit_code", "signal", "may_have_run", "node")

    def __init__(
        self,
        message: str,
        *,
        address: str = "",
        pid: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        may_have_run: bool = True,
        node: str = "",
    ) -> None:
        super().__init__(message, address=address, may_have_run=may_have_run)
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.node = node


class HostLost(ConnectionLost):
    """The process that ran a daemon's simulation ended; the message says how.

    Attributes:
        expected: Whether a client closed or killed it; set by clients only.
    """

    expected = False


class DeadlineExceeded(CreamasError, TimeoutError):
    """A call's timeout passed; ``acknowledged`` says whether the callee confirmed its end."""

    fields: ClassVar[tuple[str, ...]] = ("acknowledged", "may_have_run", "addresses")

    def __init__(
        self,
        message: str,
        *,
        acknowledged: bool = False,
        may_have_run: bool = True,
        addresses: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.acknowledged = acknowledged
        self.may_have_run = may_have_run
        self.addresses = list(addresses)


class StepOverran(DeadlineExceeded):
    """A step's time was up before all agents had acted; the others' results are kept.

    Attributes:
        addresses: Agents that had not finished, or not begun, in spawn order; for a
            slave that did not answer, its manager's address instead.
        results: What the agents that finished returned, in spawn order.
        failures: Address of each agent whose ``act`` raised -> its ``AgentError``.
        acknowledged: Whether all slaves confirmed that their agents have stopped.
    """

    fields: ClassVar[tuple[str, ...]] = ("acknowledged", "addresses")

    def __init__(
        self,
        message: str,
        *,
        acknowledged: bool = True,
        addresses: Sequence[str] = (),
        failures: Mapping[str, AgentError] | None = None,
        results: Sequence[Any] = (),
    ) -> None:
        super().__init__(message, acknowledged=acknowledged, addresses=addresses)
        self.failures = dict(failures or {})
        self.results = list(results)


class CallRefused(CreamasError):
    """The callee refused the call before any user code ran.

    Attributes:
        address: The agent that refused; empty if it was not the agent that was called.
    """

    address = ""

    def by(self, address: str) -> Self:
        """Set ``address`` and return this error."""
        self.address = address
        return self


class UnknownAgent(CallRefused, KeyError):
    """The environment has no agent with that number."""


class UnknownSimulation(CallRefused, KeyError):
    """The daemon has no simulation with that name."""


class NotExposed(CallRefused, AttributeError):
    """The agent has no such method, or it is not marked with ``@expose``."""


class BadArguments(CallRefused, TypeError):
    """The arguments do not fit the method's signature."""


class BadValue(CallRefused, ValueError):
    """An argument has a value that is not allowed."""


class StartError(CreamasError):
    """A process or environment did not start; nothing of it is left."""


class RecordError(CreamasError, OSError):
    """A step could not be written to the record of the simulation, which goes on.

    Attributes:
        may_have_run: Whether the agents have acted: False if the step before it could not be
            written even now, and so this one was not taken.
        results: What they returned.
    """

    fields = ("may_have_run", "results")

    def __init__(self, message: str, *, may_have_run: bool = True, results: Results = ()) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run
        self.results = results


class CheckpointError(RecordError):
    """A checkpoint could not be written or read; what was there before is as it was.

    Attributes:
        may_have_run, results: As of a `RecordError`: of the step after which it was to be written.
    """


class NoSlaves(CreamasError, RuntimeError):
    """The operation needs slaves, and there are none."""


class LoadError(CallRefused, ImportError):
    """A class cannot be found by its name; the message says which part fails."""


# Of the messages and tracebacks of all agents that fail in one step, in characters; past it, they
# are cut to `SHORT_LENGTH` and left out.
GROUP_LENGTH = 8 << 20
SHORT_LENGTH = 200
# Why no guest loop runs asyncio in agents: there is no current task, in trio-asyncio's mixed mode,
# for asyncio.timeout, wait_for and TaskGroup, on which aiohttp and asyncio's streams are built. And
# a task that asyncio starts would outlive the scopes and deadlines of the act that started it.
_NOT_ASYNCIO = (
    "use anyio or trio here, not asyncio, or give asyncio a thread: "
    "await creamas_sc.run_asyncio(function, ...)"
)
# How errors begin that trio and asyncio raise where the one meets the other.
_MEETINGS = ("trio got unex", "trio.run rec", "no running event", "There is no current event")


def misses_asyncio(error: BaseException) -> bool:
    """Whether ``error`` was raised because asyncio was used where its loop does not run."""
    if not isinstance(error, (RuntimeError, TypeError, AttributeError)):
        return False
    if text_of(error).startswith(_MEETINGS):
        return True
    # Most of asyncio fails on the loop's absence somewhere in its own code.
    modules = [
        str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    in_a_loop = "asyncio.base_events" in modules or "asyncio.runners" in modules
    return bool(modules) and modules[-1].startswith("asyncio.") and not in_a_loop


class AgentError(CreamasError):
    """An exception in an agent's code, described so that it can be sent to other processes.

    Attributes:
        address: The agent's address.
        type_name: Qualified name of the exception's type.
        message: ``str()`` of the exception, without its middle if it is long.
        traceback_text: The traceback as Python prints it, from the agent's own process, without the
            frames of creamas_sc; shortened in the same way, and left out if very many agents
            failed, or if nothing but the message would be left.
    """

    fields = ("address", "type_name", "message", "traceback_text")
    may_have_run = True
    # What follows an exception's message in this process; `runtime.code_versions` sets it.
    note_of: ClassVar[Callable[[BaseException], str]] = staticmethod(lambda error: "")

    def __init__(
        self, *, address: str, type_name: str, message: str, traceback_text: str = ""
    ) -> None:
        super().__init__(f"{type_name} in {address}: {message}")
        self.address = address
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text
        if traceback_text:
            self.add_note(f"Traceback in {address}:\n{traceback_text.rstrip()}")

    @classmethod
    def from_exception(cls, address: str, error: BaseException) -> AgentError:
        """Describe ``error``, raised by the code of the agent at ``address``."""
        cause = unwrapped(error)
        kind = type(cause)
        name = kind.__qualname__
        if kind.__module__ != "builtins":
            name = f"{kind.__module__}.{name}"
        message = text_of(cause) + cls.note_of(cause)
        if misses_asyncio(cause):
            message += f" (agents run under trio: {_NOT_ASYNCIO})"
        described = cls(
            address=address,
            type_name=shorten(name),
            message=message,
            traceback_text=traceback_of(error, short=True),
        )
        described.__cause__ = error
        return described


def unwrapped(error: BaseException) -> BaseException:
    """Return the only error of a group of one, as nurseries raise it, else ``error`` itself."""
    # AgentErrors and other subclasses mean something by being a group.
    while type(error) in (ExceptionGroup, BaseExceptionGroup):
        assert isinstance(error, BaseExceptionGroup)
        if len(error.exceptions) > 1:
            break
        error = error.exceptions[0]
    return error


class AgentErrors(ExceptionGroup[AgentError]):
    """Some agents failed in an operation on many; the others' results are kept.

    Attributes:
        failures: Address of each failed agent -> its ``AgentError``.
        results: What the other agents returned, in spawn order; of ``gather``, a dict of address ->
            value.
    """

    results: Any

    def __new__(
        cls, message: str, failures: Mapping[str, AgentError], results: Results = ()
    ) -> AgentErrors:
        return super().__new__(cls, message, list(failures.values()))

    def __init__(
        self, message: str, failures: Mapping[str, AgentError], results: Results = ()
    ) -> None:
        self.failures = dict(failures)
        self.results = dict(results) if isinstance(results, Mapping) else list(results)

    def derive(self, excs: Sequence[AgentError], /) -> AgentErrors:  # type: ignore[override]
        """Make a part of the group, for ``split`` and ``except*``."""
        return AgentErrors(self.message, {e.address: e for e in excs}, self.results)


def first_error(errors: Sequence[Exception]) -> Exception:
    """Return the first of several simultaneous errors, with notes about the others."""
    first, *others = errors
    for other in others:
        first.add_note(f"and {type(other).__name__}: {other}")
    return first


def agent_errors(what: str, failures: Mapping[str, BaseException], results: Results) -> AgentErrors:
    """Return the error for agents that ``what``, "failed to act" say, with the others' results."""
    errors = _by_agent(failures)
    message = f"{len(errors)} of the agents {what}: {enumerate_first(list(errors))}"
    return AgentErrors(message, errors, results)


def step_error(
    failures: Mapping[str, BaseException],
    results: Sequence[Any],
    late: Sequence[str] = (),
    silent: Sequence[str] = (),
) -> AgentErrors | StepOverran:
    """Return the error of a step in which agents failed or were late, or slaves did not answer."""
    if not late and not silent:
        return agent_errors("failed to act", failures, results)
    parts = [f"{len(late)} of the agents had not acted"] if late or not silent else []
    if silent:
        parts.append(f"{len(silent)} of the slaves did not answer")
    return StepOverran(
        f"{' and '.join(parts)} when the step's time was up: {enumerate_first([*silent, *late])}",
        acknowledged=not silent,
        addresses=[*silent, *late],
        failures=_by_agent(failures),
        results=results,
    )


def _by_agent(failures: Mapping[str, BaseException]) -> dict[str, AgentError]:
    described, left = {}, GROUP_LENGTH
    for address, error in failures.items():
        if not (isinstance(error, AgentError) and error.address == address):
            error = AgentError.from_exception(address, error)
        left -= len(error.message) + len(error.traceback_text)
        if left < 0:
            text = shorten(error.message, SHORT_LENGTH)
            error = AgentError(address=address, type_name=error.type_name, message=text)
        described[address] = error
    return described


def enumerate_first(names: Sequence[str]) -> str:
    """Join the first three of ``names`` and say how many more there are."""
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return ", ".join([*names[:3], *more])


# What each class is called on the wire; AgentErrors, which is a group, is described separately.
WIRE_CODES: dict[str, type[CreamasError]] = {
    name: globals()[name] for name in __all__ if name != "AgentErrors"
}


def to_wire(error: BaseException) -> dict[str, Any]:
    """Return ``error`` as plain values; one outside the tree becomes a plain CreamasError."""
    error = unwrapped(error)
    described: dict[str, Any]
    if isinstance(error, AgentErrors):
        described = {"code": "AgentErrors", "message": shorten(error.message), "fields": {}}
    elif isinstance(error, CreamasError) and type(error) in WIRE_CODES.values():
        fields = {name: getattr(error, name) for name in error.fields}
        # An AgentError's text is made of its fields.
        text = "" if isinstance(error, AgentError) else text_of(error)
        described = {"code": type(error).__name__, "message": text, "fields": fields}
    else:
        described = {"code": "CreamasError", "message": summary_of(error), "fields": {}}
    if isinstance(error, (AgentErrors, StepOverran)):
        described["failures"] = [to_wire(e) for e in error.failures.values()]
        described["results"] = error.results
    return described


def from_wire(described: Mapping[str, Any]) -> BaseException:
    """Return the error that `to_wire` described.

    Raises:
        DecodeError: ``described`` is not such a description.
    """
    try:
        code, message, fields = described["code"], described["message"], described["fields"]
        if type(message) is not str:
            raise TypeError(f"a message of type {type(message).__name__}")
        if code == "AgentError":
            return AgentError(**fields)
        if code in ("AgentErrors", "StepOverran"):
            errors = [AgentError(**failure["fields"]) for failure in described["failures"]]
            failures = {error.address: error for error in errors}
            if code == "AgentErrors":
                return AgentErrors(message, failures, described["results"])
            fields = {**fields, "failures": failures, "results": described["results"]}
        return WIRE_CODES[code](message, **fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError(f"not a description of an error: {error!r}") from error
