"""What runs in an actor's process: finds the entry and runs it; none of its errors escapes.

An entry is ``async def entry(spec: bytes, control: Control) -> bytes``. It awaits
``control.ready()`` once it is up, and returns soon after ``control.wait_stop()`` did; what it
returns is the payload of its `StopResult`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from typing import Any, NamedTuple, Protocol

import trio

from creamas_sc.errors import CreamasError, unwrapped
from creamas_sc.foreign import summary_of, text_of, traceback_of
from creamas_sc.runtime.class_loading import load_object
from creamas_sc.runtime.nurseries import split_cancellation
from creamas_sc.supervisor_client.messages import ProcessOrder, os_text
from supervisor.timeouts import REAP_SECONDS
from supervisor.tree import adoption, orphans

# In the zygote, before it forks: later tractor appends folders to it.
_clean_path = list(sys.path)


class Outcome(NamedTuple):
    """How an entry ended: with a payload, or with an error."""

    payload: bytes | None
    error: str | None = None
    traceback: str = ""


class Stream(Protocol):
    """Messages to and from the supervisor, as a trio channel has them."""

    async def send(self, message: list[Any]) -> None:
        """Send one message."""

    async def receive(self) -> list[Any]:
        """Wait for the next message."""


class Control:
    """What an entry has to do with the supervisor.

    Attributes:
        descriptors: Those that were passed with its start; the entry owns them.
    """

    def __init__(self, stream: Stream, descriptors: tuple[int, ...] = ()) -> None:
        self.descriptors = descriptors
        self._stream = stream
        self._ready = False
        self._stopping = trio.Event()
        self._payload = b""

    async def ready(self, info: bytes = b"") -> None:
        """Report that the actor is up; ``info`` is what its start returns.

        Raises:
            RuntimeError: It was called already.
        """
        if self._ready:
            raise RuntimeError("ready() was called already")
        self._ready = True
        await self._stream.send(["ready", info])

    async def wait_stop(self) -> bytes:
        """Wait until the actor is asked to stop; returns what came with the request."""
        await self._stopping.wait()
        return self._payload

    async def listen(self) -> None:
        """Take the supervisor's messages until there are no more."""
        with suppress(trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                kind, payload = await self._stream.receive()
                if kind == "stop" and not self._stopping.is_set():
                    self._payload = payload
                    self._stopping.set()


async def run_entry(
    order: ProcessOrder, stream: Stream, descriptors: Sequence[int] = ()
) -> Outcome:
    """Run the entry that ``order`` names; SystemExit and KeyboardInterrupt are outcomes too."""
    control = Control(stream, tuple(descriptors))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.listen)
            nursery.start_soon(_reap_adopted)
            _apply(order)
            entry = load_object(order["entry"])
            if not inspect.iscoroutinefunction(entry):
                raise TypeError(f"{order['entry']} is not a coroutine function")
            payload = await entry(order["spec"], control)
            if not isinstance(payload, bytes):
                raise TypeError(f"{order['entry']} returned {type(payload).__name__}, not bytes")
            nursery.cancel_scope.cancel()
    except BaseException as error:  # user code may raise anything; cancellation goes on below
        cancelled, failure = split_cancellation(error)
        if failure is None:
            raise
        if cancelled is not None:
            raise cancelled from None
        failure = unwrapped(failure)
        return Outcome(None, _described(failure), traceback_of(failure))
    return Outcome(payload)


def _described(error: BaseException) -> str:
    """What ended the process, as Python prints it; only the text of an error of `creamas_sc`.

    Those say what is wrong, and one becomes part of the next on the way from a slave to a client.
    """
    ours = type(error).__module__ == CreamasError.__module__
    return (ours and text_of(error)) or summary_of(error)


async def _reap_adopted() -> None:
    """Reap again and again; SIGCHLD, which would say when, belongs to the user's code."""
    candidates: set[int] = set()
    while True:
        await trio.sleep(REAP_SECONDS)
        candidates = adoption.reap(candidates)


def _apply(order: ProcessOrder) -> None:
    """Take the working folder, environment and import path that the order asks for."""
    environ = {os_text(key): os_text(value) for key, value in order["environ"].items()}
    # What this process starts belongs to this tree, not to that of the process that ordered it.
    environ[orphans.VARIABLE] = os.environ.get(orphans.VARIABLE, "")
    # Most of it is inherited as it should be, in memory that is shared until it is written to.
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update({k: v for k, v in environ.items() if os.environ.get(k) != v})
    os.chdir(os_text(order["cwd"]))
    first = [os_text(folder) for folder in order["path"]]
    sys.path[:] = [*first, *(folder for folder in _clean_path if folder not in first)]
    _make_way("supervisor")


def _make_way(package: str) -> None:
    """Have a user's module that has the name of a package of this process be found by it.

    What was imported of the package stays in use where it was imported.
    """
    spec = PathFinder.find_spec(package)
    if spec is None or spec.origin == sys.modules[package].__file__:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
