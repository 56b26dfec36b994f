"""How objects of users' classes are sent: by a pair of functions and a name, never by pickle.

Plain values, numpy arrays and artifacts (subclasses included) need no serializer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from creamas_sc.runtime.class_loading import class_name
from creamas_sc.wire.codec import Serializer

__all__ = [
    "MsgPack",
    "array_serializer",
    "artifact_serializer",
    "check_codec",
    "follow",
    "get_serializers",
    "ndarray_serializer",
    "register",
    "to_serializers",
]

T = TypeVar("T")
Triple = tuple[type, Callable[[Any], Any], Callable[[Any], Any]]

_PICKLERS = frozenset({"_pickle", "pickle", "dill", "cloudpickle", "marshal", "joblib"})
_registry: dict[str, Serializer] = {}
_followers: list[weakref.WeakMethod[Callable[[Serializer], object]]] = []


class MsgPack:
    """The codec of all environments, for ``codec=``: values are packed as MessagePack."""


def check_codec(codec: Any) -> None:
    """Raise a TypeError unless ``codec`` is `MsgPack` or None."""
    if codec is not None and codec is not MsgPack:
        name = getattr(codec, "__qualname__", repr(codec))
        raise TypeError(
            f"codec {name} is not supported: environments use MessagePack; leave codec out or pass "
            "creamas_sc.MsgPack"
        )


def register(
    cls: type[T],
    encode: Callable[[T], Any],
    decode: Callable[[Any], T],
    name: str | None = None,
) -> None:
    """Make it possible to send objects of a class, in every environment of this process.

    Every process that receives such an object must have registered the class, so call this at the
    top level of the module that defines it. Registering a class again replaces its functions.

    Args:
        cls: The class; subclasses must be registered separately.
        encode: Turns an object into a value that can be sent, such as a dict of its attributes.
        decode: Turns that value into an equal object.
        name: Its name on the wire, by default ``pkg.mod:Class``.

    Raises:
        TypeError: ``cls`` is not a class, or a function is not callable.
        ValueError: The class is a builtin, the name is taken by another class, or the functions
            pickle.
    """
    serializer = _checked(cls, encode, decode, name)
    taken = _registry.get(serializer.name)
    if taken is not None and class_name(taken.cls) != class_name(cls):
        raise ValueError(
            f"{class_name(cls)} cannot be registered as {serializer.name!r}, which is the name of "
            f"{class_name(taken.cls)}"
        )
    for known in [s for s in _registry.values() if s.cls is cls]:
        del _registry[known.name]
    _registry[serializer.name] = serializer
    for follower in list(_followers):
        add = follower()
        if add is None:
            _followers.remove(follower)
        else:
            add(serializer)


def follow(add: Callable[[Serializer], object]) -> None:
    """Call ``add``, a bound method, with each serializer that is registered from now on.

    Needed because a slave's environment exists before the modules of its agents are imported. Only
    a weak reference to the object of ``add`` is kept.
    """
    _followers.append(weakref.WeakMethod(add))


def get_serializers() -> list[Callable[[], tuple[Any, ...]]]:
    """Return the default of ``extra_serializers``; registered classes are used in any case."""
    return [artifact_serializer, array_serializer, ndarray_serializer]


def to_serializers(extra: Iterable[Any] = ()) -> list[Serializer]:
    """Return the registered serializers, updated with ``extra``.

    Args:
        extra: Callables without arguments that return ``(cls, encode, decode)``, optionally with
            a name.

    Raises:
        TypeError, ValueError: One does not return what `register` takes.
    """
    found = {serializer.cls: serializer for serializer in _registry.values()}
    for make in extra:
        if make in _AS_THEY_ARE:
            continue
        triple: Any = make() if callable(make) else make
        if not isinstance(triple, tuple) or len(triple) not in (3, 4):
            raise TypeError(
                f"extra_serializers takes callables that return (cls, encode, decode), not {make!r}"
            )
        serializer = _checked(*triple)
        found[serializer.cls] = serializer
    return list(found.values())


def artifact_serializer() -> Triple:
    """Return a serializer as creamas has it; not needed here, and not used."""
    from creamas_sc.core.artifact import Artifact

    return Artifact, _unchanged, _unchanged


def ndarray_serializer() -> Triple:
    """Return a serializer as creamas has it; not needed here, and not used."""
    from numpy import ndarray

    return ndarray, _unchanged, _unchanged


array_serializer = ndarray_serializer

_AS_THEY_ARE = (artifact_serializer, ndarray_serializer)


def _unchanged(value: Any) -> Any:
    return value


def _checked(cls: Any, encode: Any, decode: Any, name: Any = None) -> Serializer:
    if not isinstance(cls, type):
        raise TypeError(f"a serializer needs a class, not {cls!r}")
    if not callable(encode) or not callable(decode):
        raise TypeError(
            f"the serializer of {class_name(cls)} needs an encode and a decode function"
        )
    if name is not None and not (isinstance(name, str) and name):
        raise TypeError(f"the name of {class_name(cls)} on the wire must be a str, not {name!r}")
    if cls.__module__ == "builtins":
        raise ValueError(f"{cls.__name__} is a builtin: it is sent without a serializer, or never")
    if {getattr(encode, "__module__", ""), getattr(decode, "__module__", "")} & _PICKLERS:
        raise ValueError(
            f"{class_name(cls)} cannot be pickled, since unpickling runs any code it is sent: give "
            "functions to and from plain values (a subclass of Artifact needs no serializer)"
        )
    return Serializer(cls=cls, name=name or class_name(cls), encode=encode, decode=decode)
