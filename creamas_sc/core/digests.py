"""What agents are and what they make, in a form that can be compared between two runs.

The *form* of a value is made of what msgpack packs, and holds no address: where a value is an
agent, a proxy, or a string that is an agent's address, its form has the agent's number, which is
the same at any number of slaves. Everything but None, bools, numbers, strings and bytes is a list
that begins with a tag::

    agent, number ...             manager | environment       named, class or function
    items, class, form ...        of lists, tuples, deques; in their order
    set, class, form ...          in an order of the forms
    dict, class, [key, value] ...        in its order: agents may go by it
    object, class, form of its state     array, dtype, shape, number ...
    data, class, bytes ...        as the codec packs it
    generator, class, digest      datetime, text, timestamp     int, text
    unseen, why                   cannot be compared
"""

from __future__ import annotations

import datetime
import hashlib
import random
import re
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import msgpack

from creamas_sc.core.agent import Agent
from creamas_sc.core.environment import Environment
from creamas_sc.errors import EncodeError
from creamas_sc.rpc.addresses import is_number
from creamas_sc.rpc.exposed import Proxy
from creamas_sc.rpc.rounds.order import Order, numbers_of, sort_key
from creamas_sc.wire.codec import Codec

DIGEST_BYTES = 16
MAX_DEPTH = 100
# Arrays of more numbers are compared as bytes.
_MAX_ARRAY = 4096
_PLAIN = frozenset({type(None), bool, float, bytes})
_NAMED = (type, FunctionType, BuiltinFunctionType)
# Classes of Python code, not of C, have this flag; see `object.h`.
_HEAP_TYPE = 1 << 9
# Objects of these packages say how a run goes on, not what is in it.
_OPAQUE = sys.stdlib_module_names | {"trio", "anyio", "creamas_sc", "supervisor"}
# Of an agent: what says where it is, not what it is; and how users call the rest.
_PLACE = frozenset({"_env", "_addr", "_number", "_order", "_made", "logger"})
_PUBLIC = {
    "_artifacts": "A", "_domain_knowledge": "D", "_known": "connections", "_rng": "rng",
    "_numpy_rng": "numpy_rng", "_name": "name", "_max_res": "max_res", "_cur_res": "cur_res",
}  # fmt: skip

_ADDRESS = re.compile(r"tcp://[^\s/]+:[0-9]+/[0-9]+")

Form = Any


def pack(form: Form) -> bytes:
    """A form as bytes, equal for equal forms."""
    packed: bytes = msgpack.packb(form, unicode_errors="surrogatepass")
    return packed


def unpack(packed: bytes) -> Form:
    """The reverse of `pack`."""
    return msgpack.unpackb(packed, strict_map_key=False, unicode_errors="surrogatepass")


def digest(form: Form) -> bytes:
    """A digest of a form."""
    return hashlib.blake2b(pack(form), digest_size=DIGEST_BYTES).digest()


class Forms:
    """Makes forms.

    Args:
        codec: Knows the user's classes.
        places: The base URL of each environment of the simulation -> its agents' numbers, without
            the manager's, as `runs_of` shortens them.

    Attributes:
        unseen: What could not be compared, in words.
    """

    def __init__(self, codec: Codec, places: Mapping[str, Sequence[Any]]) -> None:
        self.unseen: dict[str, None] = {}
        self._codec = codec
        self._places = {url: numbers_of(runs) for url, runs in places.items()}
        self._within: set[int] = set()
        self._whose = ""

    def of(self, value: Any) -> Form:
        """The form of a value."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is str:
            return self._text(value)
        if kind is int:
            return value if -(2**63) <= value < 2**64 else ["int", str(value)]
        if id(value) in self._within:
            return self._unseen("it holds itself")
        if len(self._within) >= MAX_DEPTH:
            return self._unseen("it is nested too deeply")
        self._within.add(id(value))
        try:
            return self._of_object(value, kind)
        except Exception as error:  # user code may raise anything
            return self._unseen(f"{kind.__qualname__}, {type(error).__name__}")
        finally:
            self._within.discard(id(value))

    def state(self, agent: Agent) -> dict[str, Form]:
        """The forms of what an agent says of its state, by name, and of its generators."""
        own: Any = None
        self._whose = f"{type(agent).__qualname__}: "
        try:
            own = agent.__getstate__()
        except Exception as error:  # user code may raise anything
            self._unseen(f"__getstate__, {type(error).__name__}")
        state: dict[str, Any] = {}
        for part in own if isinstance(own, tuple) else (own,):  # attributes, and slots
            state |= part if _is_attributes(part) else {"__getstate__()": part}
        for name in ("_rng", "_numpy_rng"):
            state[name] = getattr(agent, name, None)
        forms: dict[str, Form] = {}
        for name in sorted(state.keys() - _PLACE):
            public = _PUBLIC.get(name, name)
            self._whose = f"{type(agent).__qualname__}.{public}: "
            forms[public] = self.of(state[name])
        self._whose = ""
        return forms

    def without_addresses(self, text: str) -> str:
        """A text in which agents are named by their numbers."""
        return _ADDRESS.sub(lambda found: _words(self._text(found[0])), text)

    def _unseen(self, why: str) -> Form:
        self.unseen[self._whose + why] = None
        return ["unseen", why]

    def _text(self, text: str) -> Form:
        """An address as the agent that is there, any other text as it is."""
        if not text.startswith("tcp://"):
            return text
        end = text.rfind("/") + 1
        numbers, number = self._places.get(text[:end]), text[end:]
        if numbers is None or not is_number(number):
            return text
        at = int(number)
        if not at:
            return ["manager"]
        return ["agent", *sort_key(numbers[at - 1])] if at <= len(numbers) else text

    def _of_object(self, value: Any, kind: type) -> Form:
        name = kind.__qualname__
        if isinstance(value, (Agent, Proxy)):
            return self._text(value.addr)
        if isinstance(value, Environment):
            return ["environment"]
        if isinstance(value, _NAMED):
            return ["named", value.__qualname__]
        if isinstance(value, MethodType):
            return ["named", value.__func__.__qualname__, self.of(value.__self__)]
        if isinstance(value, Enum):
            return ["named", f"{name}.{value.name}"]
        if isinstance(value, (list, tuple, deque)):
            return ["items", name, *map(self.of, value)]
        if isinstance(value, dict):
            return ["dict", name, *([self.of(k), self.of(v)] for k, v in value.items())]
        if isinstance(value, (set, frozenset)):
            return ["set", name, *sorted(map(self.of, value), key=pack)]
        if isinstance(value, random.Random):
            return ["generator", name, digest(value.getstate())]
        if isinstance(value, datetime.datetime):
            return ["datetime", value.isoformat(), value.timestamp()]
        if kind.__module__.partition(".")[0] == "numpy":
            form = self._of_numpy(value, name)
            if form is not None:
                return form
        if hasattr(kind, "_wire_state_"):
            return ["object", name, self._of_state(value._wire_state_())]
        if is_dataclass(kind):
            state = {field.name: getattr(value, field.name) for field in fields(kind)}
            return ["object", name, self._of_state(state)]
        with suppress(EncodeError):
            body, parts = self._codec.encode(value)
            return ["data", name, body, *map(bytes, parts)]
        if _is_python(kind):
            return ["object", name, self._of_state(value.__getstate__())]
        return self._unseen(name)

    def _of_state(self, state: Any) -> Form:
        """An object's state; the order in which it got its attributes is not part of it."""
        return self.of(dict(sorted(state.items())) if _is_attributes(state) else state)

    def _of_numpy(self, value: Any, name: str) -> Form | None:
        import numpy as np

        if isinstance(value, np.random.Generator):
            return ["generator", name, digest(self.of(value.bit_generator.state))]
        plain = isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "biuf"
        if plain and isinstance(value, np.generic):
            return ["object", name, value.item()]
        if plain and type(value) is np.ndarray and value.size <= _MAX_ARRAY:
            return ["array", str(value.dtype), list(value.shape), *value.ravel().tolist()]
        return None


def _words(form: Form) -> str:
    return form if type(form) is str else f"<{' '.join(map(str, form))}>"


def _is_attributes(state: Any) -> bool:
    return isinstance(state, dict) and all(type(name) is str for name in state)


def _is_python(kind: type) -> bool:
    """Whether a class is written in Python, and by neither its library nor this one."""
    return kind.__module__.partition(".")[0] not in _OPAQUE and all(
        base.__flags__ & _HEAP_TYPE for base in kind.__mro__[:-1]
    )


def global_generators() -> dict[str, bytes]:
    """The states of the generators that the whole process shares, as digests."""
    states = {"random": digest(random.getstate())}
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        states["numpy.random"] = digest(Forms(Codec(), {}).of(numpy.get_state(legacy=False)))
    return states


# ---- for a manager


def digests_of(env: Environment, places: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Digests of an environment's agents, and what else may differ between two runs.

    Returns:
        ``numbers`` and ``digests`` of the agents in the order of their creation, the latter as one
        piece; ``names``, number -> name of those that have one; ``generators``, see
        `global_generators`; ``hash``, of a string; and ``unseen``, what was not compared.
    """
    forms = Forms(env.network.codec, places)
    agents: list[Any] = env.get_agents(addr=False)
    return {
        "numbers": [agent.number for agent in agents],
        "digests": b"".join(digest(forms.state(agent)) for agent in agents),
        "names": {agent.number: agent.name for agent in agents if getattr(agent, "_name", None)},
        "generators": global_generators(),
        "hash": hash("creamas"),
        "unseen": list(forms.unseen),
    }


def state_of(
    env: Environment, places: Mapping[str, Sequence[Any]], number: Order
) -> dict[str, bytes]:
    """The state of the agent of that number, by attribute, each as a packed form."""
    forms = Forms(env.network.codec, places)
    for agent in env.get_agents(addr=False):
        if agent.number == number:
            return {name: pack(form) for name, form in forms.state(agent).items()}
    return {}
