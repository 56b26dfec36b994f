"""Artifacts: what agents make, and how others evaluate it."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Hashable, Mapping
from numbers import Number
from typing import Any, Self

from creamas_sc.errors import DecodeError

__all__ = ["Artifact"]


class Artifact:
    """A made object, who made it, and its evaluations.

    Two artifacts are equal if their class, creator, domain and objects are equal; evaluations and
    framings do not count, and a copy in another process equals the original. So do not change
    ``obj`` once the artifact is published or in a set.

    Args:
        creator: The maker's name, or the agent itself.
        obj: The object.
        domain: What kind of thing ``obj`` is: a class, or any value that the society agrees on.

    Raises:
        TypeError: ``creator`` is not a name and has none.
    """

    #: Age of the environment when the artifact was published; None before.
    env_time: int | None = None

    def __init__(self, creator: Any, obj: Any, domain: Any = int) -> None:
        self._creator = _name_of(creator)
        self._obj = obj
        self._domain = domain
        self._evals: dict[str, Any] = {}
        self._framings: dict[str, Any] = {}
        self._feature_values: dict[Any, Any] = {}

    @property
    def creator(self) -> str:
        """Name of the agent that made the artifact."""
        return self._creator

    @property
    def obj(self) -> Any:
        """The object itself."""
        return self._obj

    @property
    def domain(self) -> Any:
        """What kind of thing `obj` is."""
        return self._domain

    @property
    def evals(self) -> dict[str, Any]:
        """Evaluations by the evaluating agent's name."""
        return self._evals

    @property
    def framings(self) -> dict[str, Any]:
        """Framings of the evaluations by the evaluating agent's name."""
        return self._framings

    @property
    def feature_values(self) -> dict[Any, Any]:
        """Objective values of the artifact, by feature."""
        return self._feature_values

    def add_eval(self, agent: Any, e: Any, fr: Any = None) -> None:
        """Set an agent's evaluation and its framing, in place of an earlier one.

        Args:
            agent: The agent, or its name.
            e: The evaluation.
            fr: The framing.

        Raises:
            TypeError: ``agent`` is neither a name nor has one (a proxy has none).
        """
        name = _name_of(agent)
        self._evals[name] = e
        self._framings[name] = fr

    def add_feature_value(self, feat: Hashable, val: Any) -> None:
        """Set the value of a feature; for the artifact to travel, ``feat`` must be encodable."""
        self._feature_values[feat] = val

    def get_feature_value(self, feat: Hashable) -> Any:
        """Return the value of a feature, None if it has none yet."""
        return self._feature_values.get(feat)

    def _wire_state_(self) -> dict[str, Any]:
        """Return all attributes, those of subclasses included, to send with the artifact."""
        state = dict(vars(self))
        slots: Any = object.__getstate__(self)
        if isinstance(slots, tuple):  # a subclass has __slots__
            state.update(slots[1])
        return state

    @classmethod
    def _from_wire_state_(cls, state: Mapping[Any, Any]) -> Self:
        artifact = cls.__new__(cls)
        for name, value in state.items():
            if not isinstance(name, str) or name.startswith("__"):
                raise DecodeError(f"{name!r} is not an attribute of {cls.__name__}")
            object.__setattr__(artifact, name, value)
        return artifact

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, Artifact)
        return self._creator == other._creator and _content(self) == _content(other)

    def __hash__(self) -> int:
        return hash((self._creator, _content(self)))

    def __str__(self) -> str:
        return f"{self._creator}:{self._obj}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._creator!r}, {reprlib.repr(self._obj)})"

    def _repr_html_(self) -> str:
        """For notebooks: the object, a picture if it is one, and its evaluations."""
        from creamas_sc.runtime import html  # few need it

        evaluations = [(name, e, self._framings.get(name)) for name, e in self._evals.items()]
        below = html.table(("evaluated by", "evaluation", "framing"), evaluations)
        title = html.cell(f"{type(self).__name__} of {self._creator}")
        return f"<div>{title}</div><div>{html.cell(self._obj)}</div>{below if evaluations else ''}"


def _name_of(agent: Any) -> str:
    name = agent if isinstance(agent, str) else getattr(agent, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"expected an agent or its name, not {agent!r}")
    return name


def _content(artifact: Artifact) -> Hashable:
    return _frozen(artifact._domain), _frozen(artifact._obj)


_PLAIN = frozenset({bool, bytes, int, str, type, type(None)})
_NAN = object()


def _frozen(value: Any) -> Hashable:
    """Return something hashable that is equal for equal values.

    Unlike under Python's ``==``, nan equals nan, arrays may sit anywhere, and equal arrays have the
    same bits.
    """
    if type(value) in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, dict):
        return dict, frozenset((key, _frozen(item)) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return frozenset, frozenset(map(_frozen, value))
    if isinstance(value, Number):
        return _NAN if value != value else value
    # An array can only exist where numpy has been imported.
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype.hasobject:
            return numpy.ndarray, value.shape, _frozen(value.tolist())
        return numpy.ndarray, value.shape, value.dtype, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return _Unhashable(value)
    return value  # type: ignore[no-any-return]


class _Unhashable:
    """Compares a value that has no hash by its own ``==``."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unhashable) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(type(self._value))
