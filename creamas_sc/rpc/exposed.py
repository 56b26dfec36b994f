"""Calls on agents: which methods are open to others, and the proxy that calls them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from types import CoroutineType
from typing import Any, Protocol, TypeVar

from creamas_sc.errors import BadArguments, NotExposed

Function = TypeVar("Function", bound=Callable[..., Any])
# Values of these types are not; `inspect.isawaitable` takes longer than most calls.
NEVER_AWAITED = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})
_EXPOSED = "__creamas_exposed__"


def expose(method: Function) -> Function:
    """Mark a method as one that other agents may call.

    An overriding method must be marked again.
    """
    setattr(method, _EXPOSED, True)
    return method


def is_exposed(method: Any) -> bool:
    """Whether ``method`` is marked with `expose`."""
    return getattr(method, _EXPOSED, False) is True


def exposed_method(agent: Any, name: str) -> Callable[..., Any]:
    """The bound method ``name`` of ``agent``.

    Raises:
        NotExposed: There is no such method, or it is not marked with `expose`.
    """
    # In the class, or set on the agent itself: a property's code is not for others to run.
    found = getattr(type(agent), name, None)
    if getattr(found, _EXPOSED, False) is not True:
        found = getattr(agent, "__dict__", {}).get(name, found)
    if getattr(found, _EXPOSED, False) is True:
        method = getattr(agent, name)
        if getattr(method, "__func__", None) is found or (is_exposed(method) and callable(method)):
            return method  # type: ignore[no-any-return]
    kind = type(agent).__qualname__
    if callable(found) and not name.startswith("_"):
        text = f"{kind}.{name} of {agent.addr} is not exposed: mark it with @expose"
    else:
        text = f"{kind} of {agent.addr} has no exposed method {name!r:.200}"
    raise NotExposed(text).by(agent.addr)


def start_call(method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call ``method``; of a coroutine function this only makes the coroutine.

    Raises:
        BadArguments: The arguments do not fit its signature.
    """
    try:
        return method(*args, **kwargs)
    except TypeError as error:
        refused = bad_arguments(method, error)
        if refused is None:
            raise
        raise refused from None


def bad_arguments(method: Callable[..., Any], error: BaseException) -> BadArguments | None:
    """The refusal of a call of ``method`` that has raised ``error``, where it was caught.

    None if the method was entered, so that the error is its own.
    """
    # Raised by the call itself, not within the method: there is no frame below the caller's.
    traceback = error.__traceback__
    if not isinstance(error, TypeError) or traceback is None or traceback.tb_next is not None:
        return None
    address = getattr(getattr(method, "__self__", None), "addr", "")
    where = f" of {address}" if address else ""
    what = "class is made as" if isinstance(method, type) else f"method{where} is"
    signature = getattr(method, "__qualname__", repr(method))
    with suppress(TypeError, ValueError):  # it has none
        signature += str(inspect.signature(method))
    return BadArguments(f"{error}; the {what} {signature}").by(address)


def is_awaitable(value: Any) -> bool:
    """Whether what a method returned must be awaited."""
    kind = type(value)
    return kind is CoroutineType or (kind not in NEVER_AWAITED and inspect.isawaitable(value))


class Caller(Protocol):
    """What a proxy needs of the environment or client that it belongs to."""

    def call_agent(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call ``method`` of the agent at ``address``; where it does not block, a coroutine."""


class Proxy:
    """Stands for an agent wherever it lives; its exposed methods are awaited.

    ``await proxy.evaluate(artifact)`` returns what the agent's ``evaluate`` returns; of a blocking
    client, ``proxy.evaluate(artifact)`` does. Proxies of one agent are equal and have its address
    as ``addr``.
    """

    # The dict is made only for a proxy that is called.
    __slots__ = ("__dict__", "_env", "addr", "class_name")

    def __init__(self, env: Caller, addr: str, class_name: str = "Agent") -> None:
        self._env = env
        self.addr = addr
        self.class_name = class_name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        env, addr = self._env, self.addr

        def call(*args: Any, **kwargs: Any) -> Any:
            return env.call_agent(addr, name, args, kwargs)

        self.__dict__[name] = call  # found there the next time
        return call

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and other.addr == self.addr

    def __hash__(self) -> int:
        return hash(self.addr)

    def __repr__(self) -> str:
        return f"{self.class_name.rpartition(':')[2]}Proxy({self.addr!r})"
