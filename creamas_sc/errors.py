"""Every error that creamas_sc raises on purpose, and how each crosses a connection.

    CreamasError
    +-- EncodeError, DecodeError       a value that cannot travel, bytes that are no value
    +-- ProtocolError                  the peer broke the frame protocol
    +-- HandshakeError                 the peer is not one of ours
    +-- ConnectionLost                 the connection ended under a call
    |   |-- SlaveLost                  ... because the slave's process did
    |   `-- HostLost                   ... because a daemon's host did, with its simulation
    +-- DeadlineExceeded               a bounded wait ran out
    |   `-- StepOverran                ... in a step, of which the rest is kept
    +-- CallRefused                    the callee declined before any user code ran
    |   `-- UnknownAgent, UnknownSimulation, NotExposed, BadArguments, BadValue, LoadError
    +-- AgentError                     user code raised
    +-- StartError                     a slave or supervisor did not come up
    `-- NoSlaves                       asked of a MultiEnvironment without slaves
    AgentErrors                        a group of AgentError, with the others' results

``may_have_run`` on a failed call tells whether a retry could do the work twice.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

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
    "SlaveLost",
    "StartError",
    "StepOverran",
    "UnknownAgent",
    "UnknownSimulation",
]


class CreamasError(Exception):
    """Base of all errors raised on purpose.

    A subclass lists in ``fields`` the attributes that travel with it; each is a keyword of its
    constructor.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    may_have_run: bool = False

    def __str__(self) -> str:
        # KeyError, a base of some, would show the message quoted.
        return str(self.args[0]) if self.args else ""


class EncodeError(CreamasError, TypeError):
    """A value cannot be carried; ``type_name`` says what it is and ``path`` where it sits."""

    fields = ("type_name", "path")

    def __init__(self, message: str, *, type_name: str = "", path: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.path = path


class DecodeError(CreamasError, ValueError):
    """Bytes that are no encoded value, or that need a class which this process lacks."""


class ProtocolError(CreamasError):
    """The peer sent what the frame protocol does not allow."""


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
    """A slave's process ended; ``exit_code`` and ``signal`` are None where unknown."""

    fields = ("address", "pid", "exit_code", "signal", "may_have_run")

    def __init__(
        self,
        message: str,
        *,
        address: str = "",
        pid: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        may_have_run: bool = True,
    ) -> None:
        super().__init__(message, address=address, may_have_run=may_have_run)
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal


class HostLost(ConnectionLost):
    """The process that ran a daemon's simulation has ended; the message says how.

    Attributes:
        expected: Whether somebody closed or killed it; only clients know.
    """

    expected = False


class DeadlineExceeded(CreamasError, TimeoutError):
    """A call's own timeout ran out; ``acknowledged`` says whether the callee confirmed its end."""

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
    """A step's time was up before all agents had acted; what the others did is kept.

    Attributes:
        addresses: Agents that had not finished, or not begun; of a slave that did not answer, its
            manager's alone. In slave and then spawn order.
        results: What the agents that finished returned, in slave and then spawn order.
        failures: Address of each agent whose ``act`` raised -> its ``AgentError``.
        acknowledged: Whether all slaves confirmed that none of their agents acts any more.
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
    """The callee declined the call before any user code ran.

    Attributes:
        address: The agent that was called; empty where the refusal has come from elsewhere.
    """

    address = ""

    def by(self, address: str) -> Self:
        """This refusal, as one of the agent at ``address``."""
        self.address = address
        return self


class UnknownAgent(CallRefused, KeyError):
    """The environment has no agent of that number."""


class UnknownSimulation(CallRefused, KeyError):
    """The daemon has no simulation of that name."""


class NotExposed(CallRefused, AttributeError):
    """The agent has no such method, or it is not marked with ``@expose``."""


class BadArguments(CallRefused, TypeError):
    """The arguments do not fit the method's signature."""


class BadValue(CallRefused, ValueError):
    """An argument has the right type and a value that will not do."""


class StartError(CreamasError):
    """A process or environment did not come up; nothing of it is left."""


class NoSlaves(CreamasError, RuntimeError):
    """The operation needs slaves and there are none."""


class LoadError(CallRefused, ImportError):
    """A name does not lead to a class; the message says which part of it fails."""


class AgentError(CreamasError):
    """An exception in an agent's code, told so that it survives the way between processes.

    Attributes:
        address: The agent's address.
        type_name: Qualified name of the exception's type.
        message: ``str()`` of the exception.
        traceback_text: The traceback as Python prints it, from the agent's own process.
    """

    fields = ("address", "type_name", "message", "traceback_text")
    may_have_run = True

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
        text = "".join(traceback.format_exception(error))
        told = cls(
            address=address,
            type_name=name,
            message=_words(cause) + _asyncio_hint(cause),
            traceback_text=text,
        )
        told.__cause__ = error
        return told


def unwrapped(error: BaseException) -> BaseException:
    """``error``, or the only error of the group that it is: nurseries wrap a single error too."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        if type(error) not in (ExceptionGroup, BaseExceptionGroup):  # one with a meaning of its own
            break
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a user's class, whose own __str__ fails: Python's words for that
        return "<exception str() failed>"


def _asyncio_hint(error: BaseException) -> str:
    """A port's commonest slip: asyncio calls in an agent, which always runs under trio."""
    text = _words(error)
    if isinstance(error, RuntimeError) and "no running event loop" in text:
        used = True
    else:
        used = isinstance(error, TypeError) and text.startswith(("trio got unex", "trio.run rec"))
    return " (agents run under trio: use anyio or trio here, not asyncio)" if used else ""


class AgentErrors(ExceptionGroup[AgentError]):
    """Some agents of a bulk operation failed; the others' results are kept.

    Attributes:
        failures: Address of each failed agent -> its ``AgentError``.
        results: What the other agents returned, in slave and then spawn order.
    """

    def __new__(
        cls, message: str, failures: Mapping[str, AgentError], results: Sequence[Any] = ()
    ) -> AgentErrors:
        self = super().__new__(cls, message, list(failures.values()))
        return self

    def __init__(
        self, message: str, failures: Mapping[str, AgentError], results: Sequence[Any] = ()
    ) -> None:
        self.failures = dict(failures)
        self.results = list(results)

    def derive(self, excs: Sequence[AgentError], /) -> AgentErrors:  # type: ignore[override]
        """Part of the group, for ``split`` and ``except*``."""
        return AgentErrors(self.message, {e.address: e for e in excs}, self.results)


def first_error(errors: Sequence[Exception]) -> Exception:
    """The first of several of the same moment, with notes of the others."""
    first, *others = errors
    for other in others:
        first.add_note(f"and {type(other).__name__}: {other}")
    return first


def agent_errors(
    what: str, failures: Mapping[str, BaseException], results: Sequence[Any]
) -> AgentErrors:
    """The group that tells which agents ``what``, with the others' results."""
    told = _by_agent(failures)
    return AgentErrors(f"{len(told)} of the agents {what}: {first_of(list(told))}", told, results)


def step_overran(
    late: Sequence[str],
    failures: Mapping[str, BaseException],
    results: Sequence[Any],
    *,
    silent: Sequence[str] = (),
) -> StepOverran:
    """The error that tells which agents were late, and which slaves did not even say so."""
    words = f"{len(late)} of the agents had not acted when the step's time was up"
    if silent:
        words = (
            f"{words}, and {len(silent)} of the slaves did not answer"
            if late
            else (f"{len(silent)} of the slaves did not answer when the step's time was up")
        )
    return StepOverran(
        f"{words}: {first_of([*silent, *late])}",
        acknowledged=not silent,
        addresses=[*silent, *late],
        failures=_by_agent(failures),
        results=results,
    )


def _by_agent(failures: Mapping[str, BaseException]) -> dict[str, AgentError]:
    return {
        address: error
        if isinstance(error, AgentError) and error.address == address
        else AgentError.from_exception(address, error)
        for address, error in failures.items()
    }


def first_of(addresses: Sequence[str]) -> str:
    """The first of ``addresses``, for a message."""
    return ", ".join(addresses[:3]) + (", ..." if len(addresses) > 3 else "")


WIRE_CODES: dict[str, type[CreamasError]] = {
    cls.__name__: cls
    for cls in (
        AgentError,
        BadArguments,
        BadValue,
        CallRefused,
        ConnectionLost,
        CreamasError,
        DeadlineExceeded,
        DecodeError,
        EncodeError,
        HandshakeError,
        HostLost,
        LoadError,
        NoSlaves,
        NotExposed,
        ProtocolError,
        SlaveLost,
        StartError,
        StepOverran,
        UnknownAgent,
        UnknownSimulation,
    )
}
_CODES = {cls: code for code, cls in WIRE_CODES.items()}


def to_wire(error: BaseException) -> dict[str, Any]:
    """Encodable form of ``error``; what is not in the tree becomes a plain CreamasError."""
    error = unwrapped(error)
    if isinstance(error, AgentErrors):
        failures = [to_wire(e) for e in error.failures.values()]
        return {
            "code": "AgentErrors",
            "message": error.message,
            "failures": failures,
            "results": error.results,
        }
    code = _CODES.get(type(error))  # type: ignore[arg-type]
    if code is None:
        text = "".join(traceback.format_exception_only(error)).strip()
        return {"code": "CreamasError", "message": text, "fields": {}}
    assert isinstance(error, CreamasError)
    told: dict[str, Any] = {"code": code, "message": str(error)}
    told["fields"] = {name: getattr(error, name) for name in error.fields}
    if isinstance(error, StepOverran):
        told["failures"] = [to_wire(e) for e in error.failures.values()]
        told["results"] = error.results
    return told


def from_wire(told: Mapping[str, Any]) -> BaseException:
    """The error that `to_wire` described.

    Raises:
        DecodeError: ``told`` is not such a description.
    """
    try:
        code, message = told["code"], told["message"]
        if code == "AgentErrors":
            return AgentErrors(message, _failures(told), told["results"])
        cls, fields = WIRE_CODES[code], told["fields"]
        if cls is AgentError:
            return AgentError(**fields)
        if cls is StepOverran:
            fields = {**fields, "failures": _failures(told), "results": told["results"]}
        return cls(message, **fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError(f"not a description of an error: {error!r}") from error


def _failures(told: Mapping[str, Any]) -> dict[str, AgentError]:
    failures = [from_wire(failure) for failure in told["failures"]]
    return {failure.address: failure for failure in failures if isinstance(failure, AgentError)}
