"""What programs for creamas import from aiomas: write ``from creamas_sc import aiomas``.

They are other names of what creamas_sc has, and `serializable`. A container is an environment; a
remote exception is an `AgentError`, whose ``address`` and ``traceback_text`` say where it comes
from. There is one codec, whatever it is called, and no TLS or clock.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from creamas_sc.core import Environment as Container
from creamas_sc.core.agent import Agent
from creamas_sc.errors import AgentError as RemoteException
from creamas_sc.errors import CreamasError as AiomasError
from creamas_sc.mp import start
from creamas_sc.mp.managers import Manager
from creamas_sc.rpc.exposed import Proxy, expose
from creamas_sc.runtime.class_loading import load_object
from creamas_sc.serializers import MsgPack, register
from creamas_sc.util import run

__all__ = [
    "JSON",
    "Agent",
    "AiomasError",
    "Container",
    "MsgPack",
    "MsgPackBlosc",
    "Proxy",
    "RemoteException",
    "agent",
    "codecs",
    "exceptions",
    "expose",
    "rpc",
    "run",
    "serializable",
    "subproc",
    "util",
]

JSON = MsgPackBlosc = MsgPack


def serializable(cls: Any = None, repr: bool = True) -> Any:
    """Register a class whose objects have an attribute for each parameter of ``__init__``.

    Args:
        cls: The class; None for a decorator with arguments.
        repr: Give the class a ``__repr__`` that shows these attributes.

    Returns:
        The class, with a function ``__serializer__`` for ``extra_serializers``.
    """
    if cls is None:
        return lambda decorated: serializable(decorated, repr)
    names = list(inspect.signature(cls).parameters)

    def encode(thing: Any) -> dict[str, Any]:
        return {name: getattr(thing, name) for name in names}

    def decode(state: dict[str, Any]) -> Any:
        return cls(**state)

    def __serializer__() -> tuple[Any, ...]:
        return cls, encode, decode

    def __repr__(self: Any) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in encode(self).items())
        return f"{cls.__name__}({shown})"

    register(cls, encode, decode)
    __serializer__.__module__ = cls.__module__
    __serializer__.__qualname__ = f"{cls.__qualname__}.__serializer__"  # slaves find it by its name
    cls.__serializer__ = staticmethod(__serializer__)
    if repr:
        cls.__repr__ = __repr__
    return cls


agent = SimpleNamespace(Agent=Agent, Container=Container)
codecs = SimpleNamespace(
    JSON=JSON, MsgPack=MsgPack, MsgPackBlosc=MsgPackBlosc, serializable=serializable
)
exceptions = SimpleNamespace(AiomasError=AiomasError, RemoteException=RemoteException)
rpc = SimpleNamespace(Proxy=Proxy, expose=expose)
subproc = SimpleNamespace(Manager=Manager, start=start)
util = SimpleNamespace(obj_from_str=load_object, run=run)
