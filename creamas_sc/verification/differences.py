"""Where two values differ, and in what, by their forms (see `creamas_sc.core.digests`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from creamas_sc.core.digests import Form, pack
from creamas_sc.foreign import shorten

TEXT_LENGTH = 200
# Of a list or dict, so many items are shown.
MAX_ITEMS = 20
_PLAIN = ("list", "tuple", "set", "dict")


class Place(NamedTuple):
    """Where two forms differ.

    Attributes:
        path: What leads there, as in Python: "memory.pictures[3]".
        forms: What is there, in the one and in the other.
        reordered: Whether that is the same but for its order.
    """

    path: str
    forms: tuple[Form, Form]
    reordered: bool = False


def first_difference(first: Form, second: Form, path: str = "") -> Place:
    """Where two forms that are not equal differ first."""
    here = Place(path, (first, second))
    if not _alike(first, second):
        return here
    match first[0]:
        case "items" | "array":
            start = 3 if first[0] == "array" else 2
            if _reordered(first[start:], second[start:]):
                return here._replace(reordered=True)
            for at, (one, other) in enumerate(zip(first, second, strict=False)):
                if one != other:
                    return first_difference(one, other, f"{path}[{at - start}]")
        case "dict":
            ones, others = _by_key(first), _by_key(second)
            for packed, (key, value) in ones.items():
                if packed not in others:
                    return here
                if others[packed][1] != value:
                    inner = f"{path}[{text_of(key)}]"
                    return first_difference(value, others[packed][1], inner)
            return here._replace(reordered=len(ones) == len(others))
        case "object" if _is_state(first[2]) and _is_state(second[2]):
            place = first_difference(first[2], second[2])
            if not place.path:  # one has an attribute more
                return here
            name, end, rest = place.path.removeprefix("['").partition("']")
            if end:
                return place._replace(path=f"{path}.{name.removeprefix('_')}{rest}")
    return here


def _alike(first: Form, second: Form) -> bool:
    """Whether two forms are of one kind, so that their contents can be compared."""
    both_lists = type(first) is list and type(second) is list
    if not both_lists or len(first) < 2 or first[:2] != second[:2]:
        return False
    return first[0] != "array" or bool(first[2] == second[2])


def _reordered(ones: Sequence[Form], others: Sequence[Form]) -> bool:
    return len(ones) == len(others) and sorted(map(pack, ones)) == sorted(map(pack, others))


def _by_key(form: Form) -> dict[bytes, tuple[Form, Form]]:
    return {pack(key): (key, value) for key, value in form[2:]}


def _is_state(form: Form) -> bool:
    return type(form) is list and form[0] == "dict"


def text_of(form: Form) -> str:
    """A value in words, from its form; shortened."""
    return shorten(_text(form), TEXT_LENGTH)


def _text(form: Form) -> str:
    if type(form) is not list:
        return repr(form)
    match form:
        case ["agent", *numbers]:
            return f"agent {'.'.join(map(str, numbers))}"
        case ["manager" | "environment" as what]:
            return f"the {what}"
        case ["missing"]:
            return "nothing"
        case ["int", text] | ["named", text, *_]:
            return str(text)
        case ["datetime", text, _]:
            return f"datetime({text})"
        case ["items", name, *items]:
            opening, closing = "[]" if name in ("list", "deque") else "()"
            return f"{'' if name in _PLAIN else name}{opening}{_joined(items)}{closing}"
        case ["set", name, *items]:
            return f"{'' if name in _PLAIN else name}{{{_joined(items)}}}"
        case ["dict", name, *pairs]:
            texts = [f"{_text(key)}: {_text(value)}" for key, value in pairs[:MAX_ITEMS]]
            more = [f"{len(pairs) - MAX_ITEMS:,} more"] if len(pairs) > MAX_ITEMS else []
            return f"{'' if name in _PLAIN else name}{{{', '.join([*texts, *more])}}}"
        case ["object", name, ["dict", _, *pairs]]:
            texts = [f"{str(key).removeprefix('_')}={_text(value)}" for key, value in pairs]
            return f"{name}({', '.join(texts[:MAX_ITEMS])})"
        case ["object", name, value]:
            return f"{name}({_text(value)})"
        case ["array", dtype, _, *numbers]:
            return f"array([{_joined(numbers)}], {dtype})"
        case ["generator", name, state]:
            return f"{name} in state {state.hex()[:8]}"
        case ["data", name, body, *parts]:
            return f"{name} of {len(body) + sum(map(len, parts)):,} bytes"
    return "what cannot be compared"


def _joined(items: Sequence[Form]) -> str:
    more = [f"{len(items) - MAX_ITEMS:,} more"] if len(items) > MAX_ITEMS else []
    return ", ".join([*map(_text, items[:MAX_ITEMS]), *more])
