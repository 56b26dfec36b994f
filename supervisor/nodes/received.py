"""What nodes send, checked: a node is trusted to run code for us, not to be free of mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from creamas_sc.errors import BadValue
from creamas_sc.foreign import printable, shorten
from creamas_sc.runtime.paths import check_name
from creamas_sc.supervisor_client import messages

# Of a text in what a node says of itself.
TEXT_LENGTH: Final = 255
# What slaves' orders say in place of a node's name.
RESERVED: Final = ("here", "nodes")

_END: Final[dict[str, Any]] = {
    "slot": str,
    "pid": int,
    "exit_code": int | None,
    "signal": int | None,
    "error": str | None,
    "traceback": str,
}
_EXIT: Final = {**_END, "expected": bool, "returned": bool}
_STOPPED: Final = {
    **_END,
    "seconds": float,
    "graceful": bool,
    "ended_by": str,
    "payload": bytes | None,
}
_STARTED: Final = {"slot": str, "pid": int, "info": bytes}
_LOAD: Final = {"state": str, "cpu_seconds": float | None, "memory_bytes": int | None}
_ABOUT: Final = {
    "name": str,
    "instance": str,
    "host": str,
    "pid": int,
    "cores": int,
    "memory": int,
    "engine": str,
    "version": str,
    "python": str,
}


def _checked(message: Any, kinds: Mapping[str, Any], what: str) -> Any:
    """The fields of a message, and nothing else that is in it.

    Raises:
        BadValue: It has not these fields, or other kinds of values in them.
    """
    if not isinstance(message, dict):
        raise BadValue(f"{what} must be a dict, not {type(message).__name__}")
    for key, kind in kinds.items():
        if not isinstance(message.get(key), kind):
            raise BadValue(f"{what} has no {key}, or a wrong one")
    return {key: message[key] for key in kinds}


def only(answer: object) -> object:
    """The answer about one actor, of a method that answers about several."""
    return answer[0] if isinstance(answer, list) and len(answer) == 1 else None


def exit_of(message: object) -> messages.ActorExit:
    """The end of an actor; errors as of `about_of`."""
    checked: messages.ActorExit = _checked(message, _EXIT, "an exit")
    return checked


def stop_result_of(message: object) -> messages.StopResult:
    """How the stop of an actor went; errors as of `about_of`."""
    checked: messages.StopResult = _checked(message, _STOPPED, "the result of a stop")
    return checked


def started_of(message: object) -> messages.StartedActor:
    """An actor that is ready; errors as of `about_of`."""
    checked: messages.StartedActor = _checked(message, _STARTED, "the answer to a start")
    return checked


def load_of(message: object) -> Any:
    """What an actor takes of its machine; errors as of `about_of`."""
    return _checked(message, _LOAD, "a load")


def about_of(message: object) -> messages.NodeAbout:
    """What a node says of itself.

    Raises:
        BadValue: It is not that, or not a name for a node.
    """
    about: messages.NodeAbout = _checked(message, _ABOUT, "what a node says of itself")
    if check_name(about["name"], "node") in RESERVED:
        raise BadValue(f"a node cannot be called {about['name']!r}: that means something else")
    if about["cores"] < 1 or about["memory"] < 0:
        raise BadValue("a node has at least one core, and no less than no memory")
    texts = {k: shorten(printable(v), TEXT_LENGTH) for k, v in about.items() if isinstance(v, str)}
    return {**about, **texts}  # type: ignore[typeddict-item]
