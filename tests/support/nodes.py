"""Nodes for tests: processes that join, and what they join: the least of a supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import trio

from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.wire.codec import Codec, Payload
from supervisor.nodes import channel
from tests.support import trees
from tests.support.programs import ROOT, environ

KEY = bytes(range(32))
CODEC = Codec()


class Joined:
    """A node that has connected, as its supervisor sees it.

    Attributes:
        about: What it has said of itself; None before it has joined.
        renewed: How often it has renewed.
        left: Why it has left in order; None if it has not.
        exits: Its reports.
    """

    def __init__(self, stream: anyio.abc.ByteStream, lease: float) -> None:
        self.about: dict[str, Any] | None = None
        self.lease = lease
        self._answering = trio.Event()
        self.speak()
        self.renewed = 0
        self.left: str | None = None
        self.exits: list[dict[str, Any]] = []
        self.connection = Connection(stream, self._serve, on_event=self._take)

    def be_silent(self) -> None:
        """Answer no more renewals, until `speak`."""
        self._answering = trio.Event()

    def speak(self) -> None:
        """Answer them."""
        self._answering.set()

    async def call(self, method: str, *args: Any) -> Any:
        """Call one of its methods."""
        payload = CODEC.encode((args, {}))
        return CODEC.decode(await self.connection.call(None, method, payload))

    async def start(self, *entries: str) -> list[int]:
        """Have it start entries of `tests.support.entries`; the pids."""
        orders = [trees.order(f"7/{entry}", entry) for entry in entries]
        return [each["pid"] for each in await self.call("start", orders, 10.0, None)]

    async def _serve(self, request: Request) -> Payload:
        (args, _) = CODEC.decode(request.payload)
        if request.method == "join":
            (self.about,) = args
            return CODEC.encode({"name": "node", "lease": self.lease})
        if request.method == "renew":
            self.renewed += 1
            with trio.CancelScope(shield=True):  # nor does it confirm that it was cancelled
                await self._answering.wait()
        if request.method == "leave":
            (self.left,) = args
        return CODEC.encode(None)

    def _take(self, name: str, payload: Payload) -> None:
        assert name == "exited"
        self.exits.append(CODEC.decode(payload))


class Listening:
    """Where nodes join.

    Attributes:
        place: Host and port.
    """

    def __init__(
        self, listener: trio.SocketListener, joined: trio.MemoryReceiveChannel[Joined]
    ) -> None:
        self.place: tuple[str, int] = listener.socket.getsockname()[:2]
        self.next = joined.receive
        self.close = listener.socket.close

    @property
    def join(self) -> list[str]:
        """The options of the command ``node``."""
        return ["--join", "{}:{}".format(*self.place)]


@asynccontextmanager
async def listening(lease: float = 10.0) -> AsyncIterator[Listening]:
    """Let nodes in that have `KEY`; their connections end with the block."""
    certificate = channel.new_certificate()
    send, receive = trio.open_memory_channel[Joined](100)

    async def serve(stream: trio.SocketStream) -> None:
        node = Joined(await channel.accept(stream, certificate, KEY), lease)
        send.send_nowait(node)
        await node.connection.run()

    async def accept_all(listener: trio.SocketListener) -> None:
        with closing(listener.socket), suppress(trio.ClosedResourceError):
            while True:
                nursery.start_soon(serve, await listener.accept())

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(accept_all, listener)
        yield Listening(listener, receive)
        nursery.cancel_scope.cancel()


class NodeProcess:
    """A process of the command ``node``; its tree can be found while it runs."""

    def __init__(
        self, options: Sequence[str], *, pipe: bool = False, ignores: str | None = None
    ) -> None:
        command = [sys.executable, "-P", "-m", "supervisor.cli", "node", *options]
        if ignores is not None:
            command = ["sh", "-c", f"trap '' {ignores}; exec \"$@\"", "sh", *command]
        self.process = subprocess.Popen(
            [*command, *(["--key-fd", "0"] if pipe else [])],
            cwd=ROOT,
            env=environ(),
            stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
        )
        if self.process.stdin is not None:
            self.process.stdin.write(KEY.hex().encode() + b"\n")
            self.process.stdin.flush()

    async def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)


def key_file(folder: Path) -> list[str]:
    """The option with a file that has `KEY`."""
    path = folder / "nodes.key"
    path.write_text(KEY.hex())
    path.chmod(0o600)
    return ["--key-file", os.fspath(path)]


@contextmanager
def node_process(
    *options: str, pipe: bool = False, ignores: str | None = None
) -> Iterator[NodeProcess]:
    """Run a node; it is killed at the end of the block.

    Args:
        pipe: Its key comes from standard input, not from a file.
        ignores: A signal that is ignored where it starts.
    """
    node = NodeProcess(options, pipe=pipe, ignores=ignores)
    try:
        yield node
    finally:
        if node.process.stdin is not None:
            node.process.stdin.close()
        node.process.kill()
        node.process.wait()
