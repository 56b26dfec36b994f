"""Many values alike, as columns: what msgpack packs item by item goes as a few long plain lists.

A tuple is an extension, and an agent is one; each costs more than a hundred plain values. A reply
or argument with ten thousand of them, such as agents with their addresses, connections, or the
results of a step, is folded into columns instead, and unfolded into equal values of the same types
and order at the other end.

A column is a list that begins with its form:

    PLAIN, items        the items as they are
    ROWS, column ...    tuples of one length: a column of the first items, of the second ...
    TUPLES, lengths, c  tuples of any lengths; ``c`` is a column of all their items
    LISTS, lengths, c   lists, likewise
    DICTS, lengths, c, c  dicts: keys, and values
    TEXTS, texts, which   strings that come again and again: each one once, and its index
    AGENTS, c, c        agents and proxies: addresses, and class names

Nothing is announced that is not there: each item of a column takes a byte at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, count, islice
from operator import itemgetter
from typing import Any, Final, Protocol, TypeAlias

from creamas_sc.errors import DecodeError
from creamas_sc.wire.collisions import Collisions
from creamas_sc.wire.frames import MAX_FRAME_BYTES

FEW: Final = 12
"""Lists and dicts of fewer items are not looked at."""

_CONTAINERS: Final = frozenset({list, dict})
# How many containers within each other are folded; those below stay as they are.
_LEVELS: Final = 6
# More items than that cannot be in a frame; a list that holds itself would have them.
_MAX_ITEMS: Final = 2**24
_SHORT_TEXT: Final = 2**8
# What strings begin with that are worth a look: agents' addresses.
_ADDRESS: Final = "tcp://"

PLAIN, ROWS, TUPLES, LISTS, DICTS, TEXTS, AGENTS = range(7)

Column: TypeAlias = list[Any]


class References(Protocol):
    """Objects that stay where they are: agents, and the proxies of agents."""

    @property
    def types(self) -> tuple[type, ...]:
        """Classes whose instances, and those of their subclasses, are such objects."""

    def describe(self, obj: Any) -> tuple[str, str]:
        """Address and class name of ``obj``, an instance of one of ``types``."""

    def resolve(self, address: str, class_name: str) -> Any:
        """The object of that address, or a stand-in for it."""


class Columns:
    """Folds and unfolds values.

    Args:
        references: Knows agents; None where there can be none.
    """

    def __init__(self, references: References | None = None) -> None:
        self._references = references
        self._types = () if references is None else references.types
        self._folders: dict[type, Callable[[list[Any], int], Column]] = {
            tuple: self._fold_tuples,
            list: partial(self._fold_containers, LISTS),
            dict: partial(self._fold_containers, DICTS),
            str: _fold_texts,
        }

    def fold(self, value: Any) -> Column | None:
        """Columns of a list or dict, not empty; None where msgpack does it as well by itself."""
        if not self._pays(value) or (type(value) is list and type(value[0]) is str):
            return None
        column = self._fold([value], _LEVELS)
        return None if column[0] == PLAIN else column

    def unfold(self, column: Any) -> Any:
        """The value that was folded.

        Raises:
            Exception: They are no columns.
        """
        (value,) = self._unfold(column)
        return value

    # ---- folding

    def _pays(self, item: Any) -> bool:
        """Whether many items like this one are better off in columns."""
        for _ in range(_LEVELS):
            kind = type(item)
            if kind is list:
                item = _first(item)
            elif kind is dict:
                if _is_address(next(iter(item), None)):
                    return True
                item = _first(item.values())
            else:
                return kind is tuple or _is_address(item) or isinstance(item, self._types)
        return False

    def _fold(self, items: list[Any], levels: int) -> Column:
        """A column of ``items``."""
        if levels and items:
            kinds = set(map(type, items))
            folder = self._folders.get(type(items[0]))
            if folder is not None and len(kinds) == 1:
                return folder(items, levels - 1)
            if folder is None and all(issubclass(kind, self._types) for kind in kinds):
                return self._fold_agents(items)
        return [PLAIN, items]

    def _fold_tuples(self, items: list[tuple[Any, ...]], levels: int) -> Column:
        width = len(items[0])
        if width and len(set(map(len, items))) == 1:
            columns = (list(map(itemgetter(place), items)) for place in range(width))
            return [ROWS, *(self._fold(column, levels) for column in columns)]
        return self._fold_ragged(TUPLES, items, levels)

    def _fold_containers(self, form: int, items: list[Any], levels: int) -> Column:
        return self._fold_ragged(form, items, levels) if self._pays(items) else [PLAIN, items]

    def _fold_ragged(self, form: int, items: list[Any], levels: int) -> Column:
        lengths = list(map(len, items))
        if sum(lengths) > _MAX_ITEMS:
            return [PLAIN, items]
        column = self._fold(list(chain.from_iterable(items)), levels)
        if form == DICTS:
            values = list(chain.from_iterable(map(dict.values, items)))
            return [form, lengths, column, self._fold(values, levels)]
        return [PLAIN, items] if form == LISTS and column[0] == PLAIN else [form, lengths, column]

    def _fold_agents(self, items: list[Any]) -> Column:
        assert self._references is not None
        addresses, names = [], []
        for item in items:  # one by one: ten thousand pairs would be garbage that takes room
            address, name = self._references.describe(item)
            addresses.append(address)
            names.append(name)
        return [AGENTS, _fold_texts(addresses), _fold_texts(names)]

    # ---- unfolding

    def _unfold(self, column: Any) -> list[Any]:
        match column:
            case [0, list(items)]:
                return items
            case [1, *columns]:
                return list(zip(*map(self._unfold, columns), strict=True))
            case [2, lengths, items]:
                return list(_cut(tuple(self._unfold(items)), lengths))
            case [3, lengths, items]:
                return list(_cut(self._unfold(items), lengths))
            case [4, lengths, keys, values]:
                keys, values = self._unfold(keys), self._unfold(values)
                _check(lengths, len(keys))
                _check(lengths, len(values))
                if tuple in set(map(type, keys)):  # made here, of numbers perhaps
                    collisions = Collisions()
                    for key in keys:
                        collisions.add(key)
                pairs = zip(keys, values, strict=True)
                return [dict(islice(pairs, length)) for length in lengths]
            case [5, list(texts), list(which)] if {str}.issuperset(map(type, texts)):
                if _is_too_long(texts, which):
                    raise DecodeError("columns of more text than a frame may hold")
                return [texts[index] for index in which]
            case [6, addresses, names] if self._references is not None:
                agents = [self._unfold(addresses), self._unfold(names)]
                if len(agents[0]) == len(agents[1]) and {str}.issuperset(map(type, chain(*agents))):
                    return list(map(self._references.resolve, *agents))
        raise DecodeError("columns of no known form")


def _is_address(item: Any) -> bool:
    return type(item) is str and item.startswith(_ADDRESS)


def _first(items: Iterable[Any]) -> Any:
    """The first that is not an empty list or dict."""
    for item in items:
        if type(item) not in _CONTAINERS or item:
            return item
    return None


def _fold_texts(items: list[str], levels: int = 0) -> Column:
    texts = list(dict.fromkeys(items))
    if 2 * len(texts) > len(items):
        return [PLAIN, items]
    index = dict(zip(texts, count(), strict=False))
    which = list(map(index.__getitem__, items))
    return [PLAIN, items] if _is_too_long(texts, which) else [TEXTS, texts, which]


def _cut(items: Sequence[Any], lengths: Any) -> Iterator[Any]:
    """Pieces of ``items`` of these lengths, which must be all of it."""
    _check(lengths, len(items))
    ends = list(accumulate(lengths))
    return map(items.__getitem__, map(slice, [0, *ends], ends))


def _check(lengths: Any, total: int) -> None:
    if min(lengths, default=0) < 0 or sum(lengths) != total:
        raise DecodeError("columns of other lengths than announced")


def _is_too_long(texts: list[str], which: list[int]) -> bool:
    """Whether few long texts stand for more than a frame may hold: sent on, they are written out.

    Of short ones, which addresses are, there may be as many as come.
    """
    longest = max(map(len, texts), default=0)
    if longest <= _SHORT_TEXT or longest * len(which) <= MAX_FRAME_BYTES:
        return False
    return sum(len(texts[index]) for index in which) > MAX_FRAME_BYTES
