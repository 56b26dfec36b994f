"""What runs in an actor's process: finds the entry and runs it, and lets nothing of it escape."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import trio

from creamas_sc.errors import unwrapped
from creamas_sc.runtime.nurseries import split_cancellation
from supervisor.texts import TRACEBACK_LENGTH, describe, shorten
from supervisor.tree import tree_record

Entry = Callable[[bytes, "Control"], Awaitable[bytes]]

_clean_path: list[str] = list(sys.path)
_inherited: tuple[int, ...] = ()


class Link(Protocol):
    """Messages to and from the supervisor."""

    async def send(self, message: list[Any]) -> None:
        """Send one message."""

    async def receive(self) -> list[Any] | None:
        """Wait for the next; None where no more will come."""


class Control:
    """An entry's hold on its own life.

    An entry is ``async def entry(spec: bytes, control: Control) -> bytes``; what it returns goes
    into the receipt of its end.

    Attributes:
        descriptors: Those that its start handed it; its own from here on.
    """

    def __init__(self, link: Link, descriptors: tuple[int, ...] = ()) -> None:
        self.descriptors = descriptors
        self._link = link
        self._ready = False
        self._stopping = trio.Event()
        self._payload = b""

    async def ready(self, info: bytes = b"") -> None:
        """Tell that the actor is up; ``info`` is what the start returns.

        Raises:
            RuntimeError: It was told already.
        """
        if self._ready:
            raise RuntimeError("ready() was called already")
        self._ready = True
        await self._link.send(["ready", info])

    async def wait_stop(self) -> bytes:
        """Wait until the actor is asked to stop; returns what came with the request."""
        await self._stopping.wait()
        return self._payload

    async def listen(self) -> None:
        """Take the supervisor's messages, as long as there are any."""
        while (message := await self._link.receive()) is not None:
            kind, payload = message
            if kind == "stop" and not self._stopping.is_set():
                self._payload = payload
                self._stopping.set()


def remember_path(path: list[str]) -> None:
    """Name the ``sys.path`` that actors start from; tractor appends folders of its own to it."""
    global _clean_path
    _clean_path = path


def remember_descriptors(descriptors: Sequence[int]) -> None:
    """Name the descriptors that this process has inherited for its entry."""
    global _inherited
    _inherited = tuple(descriptors)


async def live(order: dict[str, Any], link: Link) -> dict[str, Any]:
    """Run the entry that ``order`` names.

    Returns:
        ``{"done": payload}``, or ``{"failed": text, "traceback": text}`` where the entry raised,
        SystemExit and KeyboardInterrupt included.
    """
    control = Control(link, _inherited)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.listen)
            _settle(order)
            payload = await _load(order["entry"])(order["spec"], control)
            if not isinstance(payload, bytes):
                raise TypeError(f"{order['entry']} returned {type(payload).__name__}, not bytes")
            nursery.cancel_scope.cancel()
    except BaseException as error:  # the border of user code; cancellation goes on below
        cancelled, failure = split_cancellation(error)
        if failure is None:
            raise
        if cancelled is not None:
            raise cancelled from None
        return _tell(failure)
    return {"done": payload}


def _settle(order: dict[str, Any]) -> None:
    """Take over the working folder, environment and import path that the actor is to have."""
    environ = {_native(k): _native(v) for k, v in order["environ"].items()}
    # What it starts belongs to this tree, not to the orderer's.
    environ[tree_record.VARIABLE] = os.environ.get(tree_record.VARIABLE, "")
    if environ != os.environ:  # as a rule it is inherited as it is to be
        os.environ.clear()
        os.environ.update(environ)
    os.chdir(_native(order["cwd"]))
    first = [_native(entry) for entry in order["path"]]
    sys.path[:] = [*first, *(p for p in _clean_path if p not in first)]


def _native(text: str) -> str:
    """A string of the operating system's, which came as one character a byte."""
    return os.fsdecode(text.encode("latin-1"))


def _load(name: str) -> Entry:
    module, _, path = name.partition(":")
    entry: Any = importlib.import_module(module)
    for attribute in path.split("."):
        entry = getattr(entry, attribute)
    if not inspect.iscoroutinefunction(entry):
        raise TypeError(f"{name} is no coroutine function")
    return entry  # type: ignore[no-any-return]


def _tell(error: BaseException) -> dict[str, Any]:
    error = unwrapped(error)
    lines = "".join(traceback.format_exception(error))
    return {"failed": describe(error), "traceback": shorten(lines, TRACEBACK_LENGTH)}
