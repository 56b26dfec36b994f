"""Which piece of a value it is that cannot be encoded. Slow, and only used once encoding failed."""

from __future__ import annotations

import datetime
import reprlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeAlias

from creamas_sc.errors import EncodeError, LoadError
from creamas_sc.foreign import summary_of, text_of
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.wire.packing import TooDeep, is_call

_MAX_STEPS: Final = 50
_Try: TypeAlias = Callable[[Any], BaseException | None]


def explained(value: Any, root: str, error: BaseException, failure_of: _Try) -> EncodeError:
    """The error for a value that could not be encoded: which piece of it, where, and why.

    Args:
        root: What the value is called; "args" of a call's pair makes the second one "kwargs".
        error: What encoding it raised.
        failure_of: Tries to encode a value alone.
    """
    # msgpack has no class for this one.
    too_deep = type(error) is ValueError and "recursion" in str(error)
    if too_deep or isinstance(error, (TooDeep, RecursionError)):
        text = f"{root} is nested too deeply, or holds itself"
        return EncodeError(text, type_name=name_of(type(value)), path=root)
    path, culprit = root, value
    if root == "args" and is_call(value):
        culprit = value[0]
        if failure_of(culprit) is None:
            path, culprit = "kwargs", value[1]
    path, culprit = _find_culprit(culprit, path, failure_of)
    error = failure_of(culprit) or error
    name = (isinstance(error, EncodeError) and error.type_name) or name_of(type(culprit))
    ours = isinstance(error, (EncodeError, LoadError))
    reason = text_of(error) if ours else summary_of(error)
    return EncodeError(f"{path}: cannot carry {name}: {reason}", type_name=name, path=path)


def name_of(cls: type) -> str:
    """The class's name for a reader."""
    return class_name(cls).replace(":", ".").removeprefix("builtins.")


def _find_culprit(value: Any, path: str, failure_of: _Try) -> tuple[str, Any]:
    """Follow the first child that fails alone, from ``value`` down; its path and itself."""
    above = {id(value)}
    for _ in range(_MAX_STEPS):
        for step, child in _children(value):
            if id(child) not in above and failure_of(child) is not None:
                above.add(id(child))
                path, value = path + step, child
                break
        else:
            return path, value
    return path + "...", value


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{{key {reprlib.repr(key)}}}", key
            yield f"[{reprlib.repr(key)}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield "{...}", item
    elif isinstance(value, (datetime.datetime, datetime.time)):
        yield ".tzinfo", value.tzinfo
    elif hasattr(value, "_wire_state_") and not isinstance(value, type):
        with suppress(Exception):  # that it fails, or returns no dict, is the failure itself
            for name, item in value._wire_state_().items():
                yield f".{name}", item
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if hasattr(value, field.name):
                yield f".{field.name}", getattr(value, field.name)
