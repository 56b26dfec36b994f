"""Starts supervisors for tests, by the recipe of `supervisor.tree.keeper`."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.paths import runtime_folder
from creamas_sc.supervisor_client.messages import ActorOrder
from creamas_sc.wire.codec import Codec, Payload
from tests.support.programs import ROOT, Program

BOUND_SECONDS = 10.0
STARTED_SECONDS = 20.0
Message = dict[str, Any]


def launch(*preload: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a tree; returns its keeper and our end of the control connection."""
    ours, theirs = socket.socketpair()
    main = ROOT / "supervisor" / "__main__.py"
    record = runtime_folder() / f"{secrets.token_hex(16)}.tree"
    with theirs:
        keeper = subprocess.Popen(
            [sys.executable, "-P", main, str(theirs.fileno()), str(os.getpid()), *preload],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CREAMAS_TREE": str(record)},
        )
    return keeper, ours


@contextmanager
def script_with_actors(*entries: str) -> Iterator[dict[str, Any]]:
    """Run a script with one actor an entry; yields the pids of all its processes."""
    script = Path(__file__).with_name("supervisor_script.py")
    with Program([sys.executable, str(script), *entries], stderr=None) as program:
        yield json.loads(program.read_until("{", STARTED_SECONDS))


def order(slot: str, entry: str, spec: bytes = b"") -> ActorOrder:
    """An actor to be started from `tests.support.entries`."""
    return {
        "slot": slot,
        "name": f"actor-{slot}",
        "entry": f"tests.support.entries:{entry}",
        "spec": spec,
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "path": [str(ROOT)],
    }


class Supervisor:
    """A running tree, seen from its script."""

    def __init__(self, keeper: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.keeper = keeper
        self.exited: list[Message] = []
        self._has_exited = trio.Event()
        self._codec = Codec()
        stream = ConnectedStream(control)
        self.connection = Connection(stream, codec=self._codec, on_event=self._take)

    def _take(self, name: str, payload: Payload) -> None:
        assert name == "exited"
        self.exited.append(self._codec.decode(payload))
        self._has_exited.set()

    async def wait_exited(self) -> Message:
        """The next event of an actor's end."""
        while not self.exited:
            self._has_exited = trio.Event()
            await self._has_exited.wait()
        return self.exited.pop(0)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the supervisor."""
        payload = self._codec.encode((args, kwargs))
        return self._codec.decode(await self.connection.call(None, method, payload))

    async def start(self, *orders: ActorOrder, timeout: float | None = None) -> list[Message]:
        """Start actors."""
        answers: list[Message] = await self.call("start", list(orders), timeout)
        return answers

    async def stop(self, slots: list[str] | None = None, grace: float = 1.0) -> list[Message]:
        """Stop actors."""
        answers: list[Message] = await self.call("stop", slots, grace, b"now")
        return answers


@asynccontextmanager
async def open_supervisor(
    *preload: str, seconds: float = BOUND_SECONDS
) -> AsyncIterator[Supervisor]:
    """A tree for the length of the block; nothing of it is left afterwards."""
    with trio.fail_after(seconds):
        keeper, control = launch(*preload)
        try:
            supervisor = Supervisor(keeper, control)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.connection.run)
                yield supervisor
                await supervisor.connection.aclose()
        finally:
            control.close()
            keeper.send_signal(signal.SIGCONT)
            keeper.wait(BOUND_SECONDS)
