"""Starts supervisors for tests, by the recipe of `supervisor.tree.keeper`."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.runtime.paths import runtime_folder
from creamas_sc.supervisor_client.messages import ActorOrder
from creamas_sc.wire.codec import Codec, Payload

ROOT = Path(__file__).parents[2]
BOUND_SECONDS = 10.0
STARTED_SECONDS = 20.0
Told = dict[str, Any]


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
def running_script(*entries: str) -> Iterator[dict[str, Any]]:
    """A script with one actor an entry; gives the pids of all, and clears up whatever happens."""
    script = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("supervisor_script.py"), *entries],
        stdout=subprocess.PIPE,
    )
    assert script.stdout is not None
    try:
        assert select.select([script.stdout], [], [], STARTED_SECONDS)[0], "no start"
        yield json.loads(script.stdout.readline())
    finally:
        script.kill()
        script.wait()
        script.stdout.close()


def kill_at_one_blow(*pids: int) -> None:
    """SIGKILL them all, so that none sees another's death."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


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
        self.exited: list[Told] = []
        self._news = trio.Event()
        self._codec = Codec()
        stream = ConnectedStream(control)
        self.connection = Connection(stream, codec=self._codec, on_event=self._take)

    def _take(self, name: str, payload: Payload) -> None:
        assert name == "exited"
        self.exited.append(self._codec.decode(payload))
        self._news.set()

    async def wait_exited(self) -> Told:
        """The next event of an actor's end."""
        while not self.exited:
            self._news = trio.Event()
            await self._news.wait()
        return self.exited.pop(0)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the supervisor."""
        payload = self._codec.encode((args, kwargs))
        return self._codec.decode(await self.connection.call(None, method, payload))

    async def start(self, *orders: ActorOrder, timeout: float | None = None) -> list[Told]:
        """Start actors."""
        told: list[Told] = await self.call("start", list(orders), timeout)
        return told

    async def stop(self, slots: list[str] | None = None, grace: float = 1.0) -> list[Told]:
        """Stop actors."""
        told: list[Told] = await self.call("stop", slots, grace, b"now")
        return told


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


def family(keeper_pid: int) -> dict[str, int]:
    """Pids of a tree's keeper, zygote, supervisor and actors, by role or actor's name."""
    zygote = children(keeper_pid)[0]
    named = {(Path("/proc") / str(p) / "comm").read_text().strip(): p for p in children(zygote)}
    return {
        "keeper": keeper_pid,
        "zygote": zygote,
        "supervisor": named.pop("creamas-superv"),
        **named,
    }


def borne_by(pid: int) -> str:
    """The record that a process bears."""
    (found,) = (
        each.removeprefix("CREAMAS_TREE=")
        for each in Path(f"/proc/{pid}/environ").read_text().split("\0")
        if each.startswith("CREAMAS_TREE=")
    )
    return found


def children(pid: int) -> list[int]:
    """Pids of the children of ``pid``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:
                continue
            if int(stat.rpartition(b")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def open_pidfds(pids: Iterable[int]) -> dict[int, int]:
    """Map each pid to a pidfd."""
    return {pid: os.pidfd_open(pid) for pid in set(pids)}


def wait_gone(pidfds: dict[int, int], seconds: float) -> list[int]:
    """Wait until all are over; closes the pidfds and returns the pids that are still there."""
    left = dict(pidfds)
    deadline = time.monotonic() + seconds
    while left:
        remaining = max(0.0, deadline - time.monotonic())
        poll = select.poll()
        for fd in left.values():
            poll.register(fd, select.POLLIN)
        over = {fd for fd, _ in poll.poll(remaining * 1000)}
        left = {pid: fd for pid, fd in left.items() if fd not in over}
        if not remaining:
            break
    for fd in pidfds.values():
        os.close(fd)
    return sorted(left)
