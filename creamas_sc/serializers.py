"""How objects of users' classes are sent: by a pair of functions and a name, never by pickle.

Plain values, numpy arrays, artifacts (subclasses included), dataclasses, Enums, NamedTuples and
functions of modules need no serializer.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from creamas_sc.runtime.class_loading import class_name
from creamas_sc.wire.codec import Codec, Serializer

__all__ = [
    "MsgPack",
    "NeedlessSerializers",
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
# Whose types the codec knows; see `Codec`.
_LIBRARIES = frozenset({"builtins", "datetime", "decimal", "numpy", "uuid", "zoneinfo"})
_registry: dict[str, Serializer] = {}
_followers: list[weakref.WeakMethod[Callable[[Serializer], object]]] = []


class NeedlessSerializers(UserWarning):
    """Some ``extra_serializers`` are ignored: objects of their classes travel without."""


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

    Those that creamas needed and this codec does not are left out, with one warning: for types of
    Python and numpy, and pickle's functions for any class whose objects can be sent without.

    Args:
        extra: Callables without arguments that return ``(cls, encode, decode)``, optionally with
            a name.

    Raises:
        TypeError, ValueError: One does not return what `register` takes.
    """
    found = {serializer.cls: serializer for serializer in _registry.values()}
    ignored: list[str] = []
    for make in extra:
        if make in _AS_THEY_ARE:
            continue
        triple: Any = make() if callable(make) else make
        if not isinstance(triple, tuple) or len(triple) not in (3, 4):
            raise TypeError(
                f"extra_serializers takes callables that return (cls, encode, decode), not {make!r}"
            )
        if _is_needless(*triple[:3], known=triple[0] in found):
            ignored.append(triple[0].__name__)
            continue
        serializer = _checked(*triple)
        found[serializer.cls] = serializer
    if ignored:
        text = f"extra_serializers for {', '.join(ignored)} are ignored: these travel without"
        warnings.warn(text, NeedlessSerializers, stacklevel=4)
    return list(found.values())


def _is_needless(cls: Any, encode: Any, decode: Any, *, known: bool) -> bool:
    """Whether objects of the class travel as they are, and the functions would do no better.

    Args:
        known: Whether a serializer for the class is registered.
    """
    library = str(getattr(cls, "__module__", "")).partition(".")[0] in _LIBRARIES
    if not isinstance(cls, type):
        return library and callable(cls)  # creamas has a serializer for the function numpy.array
    return (library or _pickles(encode, decode)) and (known or Codec().carries(cls))


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
    if cls is object:
        raise ValueError("there is no serializer for all objects at once: register their classes")
    if cls.__module__ == "builtins":
        raise ValueError(f"{cls.__name__} is a builtin: it is sent without a serializer, or never")
    if _pickles(encode, decode):
        raise ValueError(_NO_PICKLE.format(class_name(cls), cls.__name__))
    return Serializer(cls=cls, name=name or class_name(cls), encode=encode, decode=decode)


def _pickles(*functions: Any) -> bool:
    return not _PICKLERS.isdisjoint(getattr(function, "__module__", "") for function in functions)


_NO_PICKLE = """\
objects of {0} cannot be pickled, since unpickling runs any code it is sent.
A subclass of Artifact needs no serializer, and neither does a dataclass. For another class give
functions to and from plain values, at the top level of its module or of your agents'; for example:

    from creamas_sc.serializers import register

    register({1}, lambda thing: vars(thing), lambda state: {1}(**state))
"""
