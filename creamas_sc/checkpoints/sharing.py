"""What of a state is held more than once, also by the objects within it.

msgpack packs lists, dicts, tuples and bytearrays by itself, and sees neither that one of them has
come before nor that a bytearray is not bytes. So when a state is encoded, a `Held` takes the place
of each such one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from creamas_sc.errors import EncodeError

_CONTAINERS: Final = frozenset({list, dict, tuple})
_BUFFERS: Final = frozenset({bytearray, memoryview})
_LEAVES: Final = frozenset({int, float, str, bool, bytes, type(None)})

# What is kept of an object.
StateOf = Callable[[Any], Any]


class Held:
    """Stands for a list, dict, tuple or bytearray; there is one for each."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Sharing:
    """Knows what a value holds more than once.

    Args:
        find_state: For a class, what says what is kept of its objects; None if they hold nothing
            that this must look at.
    """

    def __init__(self, value: Any, find_state: Callable[[type], StateOf | None]) -> None:
        self._find_state = find_state
        # The objects are kept, or others might get their ids.
        self._states: dict[int, tuple[Any, Any]] = {}
        self._marked: set[int] = set()
        self._replaced: dict[int, Held] = {}
        self._open: set[int] = set()
        self._search(value)

    def _search(self, value: Any) -> None:
        seen, left = set[int](), [value]
        while left:
            item = left.pop()
            kind = type(item)
            if kind in _BUFFERS:
                self._marked.add(id(item))
            elif id(item) not in seen:
                seen.add(id(item))
                left += [each for each in self._items(item) if type(each) not in _LEAVES]
            elif kind in _CONTAINERS and item != ():
                self._marked.add(id(item))

    def _items(self, item: Any) -> Any:
        state = item if type(item) in _CONTAINERS else self.state_of(item)
        if type(state) is dict:
            return state.values()
        return state if type(state) in _CONTAINERS else ()

    def state_of(self, item: Any) -> Any:
        """What is kept of an object; it is asked once. None if nothing that can be looked at."""
        known = self._states.get(id(item))
        if known is not None:
            return known[1]
        get = self._find_state(type(item))
        if get is None:
            return None
        state = get(item)
        self._states[id(item)] = item, state
        return state

    def of(self, value: Any) -> Any:
        """A value with a `Held` in place of each one that is marked, down to the next objects.

        Raises:
            EncodeError: A list, dict or tuple holds itself.
        """
        if not self._marked:
            return value
        kind, key = type(value), id(value)
        if kind not in _CONTAINERS:
            return self._held(value, value) if kind in _BUFFERS else value
        if key in self._replaced:
            return self._replaced[key]
        if key in self._open:
            raise EncodeError("it holds itself", type_name=kind.__name__)
        self._open.add(key)
        try:
            new: Any = map(self.of, value.values() if kind is dict else value)
            new = dict(zip(value, new, strict=True)) if kind is dict else kind(new)
        finally:
            self._open.discard(key)
        return self._held(value, new) if key in self._marked else new

    def _held(self, value: Any, new: Any) -> Held:
        return self._replaced.setdefault(id(value), Held(new))


def attributes_of(value: Any) -> dict[str, Any]:
    """All that an object has, in its ``__dict__`` and its slots."""
    state: Any = object.__getstate__(value)
    if isinstance(state, tuple):
        own, slots = state
        return {**(own or {}), **slots}
    return dict(state or {})
