"""The bare limit of calls: two processes, one socket between them, msgpack, and nothing else.

"sockets" has trio on both sides; messages that are ready together leave in one write.
"sockets-direct" writes each message at once, from the caller. "raw" blocks on plain sockets and has
one caller; "shm" copies large values into shared memory and sends their size.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NoReturn

import msgpack
import outcome
import trio

from tests.benchmarks.adapter import Adapter, drive
from tests.benchmarks.work import touch

__all__ = ["ARRAY", "CallsAlone", "Raw", "Sockets", "served", "unpacker_of_calls"]

READ_BYTES = 1 << 18
LARGEST_BYTES = 1 << 27
SHARED_BYTES = 1 << 21
DONE = b"."
# What is judged: as much as 32 x 32 floats.
ARRAY = bytes(8 * 32 * 32)
SIZE = struct.Struct("!Q")
VERSION = f"Python {'.'.join(map(str, sys.version_info[:3]))}"


def unpacker_of_calls() -> msgpack.Unpacker:
    """Of messages of any size that occurs."""
    return msgpack.Unpacker(max_buffer_size=LARGEST_BYTES)


@contextmanager
def served(serve: Callable[[socket.socket], object]) -> Iterator[socket.socket]:
    """A connection to a forked process that serves it until it is closed."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _serve_and_exit(serve, ours, theirs)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _serve_and_exit(
    serve: Callable[[socket.socket], object], ours: socket.socket, theirs: socket.socket
) -> NoReturn:
    try:
        ours.close()
        serve(theirs)
    finally:
        os._exit(0)


class CallsAlone(Adapter):
    """An adapter for workloads of calls: it has no agents, and calls go one way."""

    peer = "limit"
    version = VERSION

    async def stop(self) -> None:
        """Nothing is started before the calls."""

    async def start(self) -> None:
        """Nothing is started before the calls."""

    async def setup_calls(self, n: int, local: bool) -> None:
        if local:
            raise NotImplementedError
        self._callers = n

    async def setup_step_calls(self, n: int) -> None:
        self._callers = n

    async def step_calls(self, m: int) -> None:
        await self.run_calls(m)

    async def setup_opinions(self, n: int) -> None:
        self._callers = n

    async def spawn(self, kind: str, n: int) -> list[str]:
        raise NotImplementedError

    async def spawn_one(self, kind: str) -> str:
        raise NotImplementedError

    async def trigger_all(self, *args: Any) -> list[Any]:
        raise NotImplementedError

    async def get_agents(self) -> list[str]:
        raise NotImplementedError

    async def create_connections(self, connection_map: Mapping[str, Sequence[Any]]) -> list[Any]:
        raise NotImplementedError

    async def get_connections(self) -> list[tuple[str, dict[str, Any]]]:
        raise NotImplementedError

    async def slave_pids(self) -> list[int]:
        raise NotImplementedError


class Sockets(CallsAlone):
    """The limit under trio."""

    variants = ("sockets", "sockets-direct")

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        with served(lambda sock: trio.run(_trio_server, sock)) as sock:
            return trio.run(self._connected, sock, function, *args)

    async def _connected(
        self, sock: socket.socket, function: Callable[..., Awaitable[Any]], *args: Any
    ) -> Any:
        self._client = _TrioClient(sock, direct=self.variant == "sockets-direct")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._client.read)
            nursery.start_soon(self._client.write)
            result = await function(*args)
            nursery.cancel_scope.cancel()
        return result

    async def run_calls(self, m: int) -> None:
        await self._all_call(range(m))

    async def ask_opinions(self, m: int) -> None:
        await self._all_call([ARRAY] * m)

    async def _all_call(self, values: Sequence[Any]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self._callers):
                nursery.start_soon(self._several, values)

    async def _several(self, values: Sequence[Any]) -> None:
        for value in values:
            await self._client.call(value)

    async def latencies(self, m: int) -> list[float]:
        took = []
        for number in range(m):
            began = time.perf_counter()
            await self._client.call(number)
            took.append(time.perf_counter() - began)
        return took

    async def payload(self, kind: str, nbytes: int, m: int) -> float:
        data = b"\1" * nbytes
        began = time.perf_counter()
        for _ in range(m):
            await self._client.call(data)
        return time.perf_counter() - began


async def _trio_server(sock: socket.socket) -> None:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    pack, unpacker = msgpack.Packer().pack, unpacker_of_calls()
    while data := await stream.receive_some(READ_BYTES):
        unpacker.feed(data)
        answers = [pack((number, (touch(value), None))) for number, value in unpacker]
        if answers:
            await stream.send_all(b"".join(answers))


class _TrioClient:
    """Calls that wait for their answers, by number."""

    def __init__(self, sock: socket.socket, *, direct: bool) -> None:
        self._sock, self._direct = sock, direct
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._numbers = itertools.count()
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        self._unsent: list[bytes] = []
        self._to_send = trio.Event()
        self._pack = msgpack.Packer().pack

    async def read(self) -> None:
        """Wake the callers whose answers come."""
        unpacker = unpacker_of_calls()
        while data := await self._stream.receive_some(READ_BYTES):
            unpacker.feed(data)
            for number, answer in unpacker:
                trio.lowlevel.reschedule(self._waiting.pop(number), outcome.Value(answer))

    async def write(self) -> None:
        """Send together what is ready together."""
        while True:
            await self._to_send.wait()
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._to_send = trio.Event()
            await self._stream.send_all(data)

    async def call(self, value: Any) -> Any:
        """Have a value judged."""
        number = next(self._numbers)
        data = self._pack((number, value))
        self._waiting[number] = trio.lowlevel.current_task()
        if self._direct and not self._unsent:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                pass
        if data:
            self._unsent.append(data)
            self._to_send.set()
        return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


class Raw(CallsAlone):
    """The limit of blocking sockets, with one caller."""

    variants = ("raw", "shm")

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        memory = SharedMemory(create=True, size=SHARED_BYTES)
        assert memory.buf is not None
        self._shared = memory.buf
        try:
            with served(self._serve) as self._sock:
                return drive(function, *args)
        finally:
            memory.close()
            memory.unlink()

    def _serve(self, sock: socket.socket) -> None:
        if self.variant == "shm":
            self._serve_shared(sock)
        else:
            self._serve_sent(sock)

    def _serve_shared(self, sock: socket.socket) -> None:
        head = bytearray(SIZE.size)
        while _receive(sock, memoryview(head)):
            touch(self._shared[: SIZE.unpack(head)[0]])
            sock.sendall(DONE)

    def _serve_sent(self, sock: socket.socket) -> None:
        head, body = bytearray(SIZE.size), memoryview(bytearray(SHARED_BYTES))
        while _receive(sock, memoryview(head)):
            value = body[: SIZE.unpack(head)[0]]
            _receive(sock, value)
            touch(value)
            sock.sendall(DONE)

    async def latencies(self, m: int) -> list[float]:
        took = []
        for _ in range(m):
            began = time.perf_counter()
            self._send(b"")
            took.append(time.perf_counter() - began)
        return took

    async def run_calls(self, m: int) -> None:
        for _ in range(self._callers * m):
            self._send(b"")

    async def payload(self, kind: str, nbytes: int, m: int) -> float:
        data = b"\1" * nbytes
        began = time.perf_counter()
        for _ in range(m):
            self._send(data)
        return time.perf_counter() - began

    def _send(self, data: bytes) -> None:
        if self.variant == "shm":
            self._shared[: len(data)] = data
            self._sock.sendall(SIZE.pack(len(data)))
        else:
            self._sock.sendall(SIZE.pack(len(data)) + data)
        assert self._sock.recv(1) == DONE


def _receive(sock: socket.socket, view: memoryview) -> bool:
    """Fill ``view``; False at the end of the connection."""
    got = 0
    while got < len(view):
        more = sock.recv_into(view[got:])
        if not more:
            return False
        got += more
    return True
