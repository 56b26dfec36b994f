"""The limit of calls with uvloop in place of trio; see `tests.benchmarks.sockets`."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

import msgpack

from tests.benchmarks.sockets import ARRAY, CallsAlone, served, unpacker_of_calls
from tests.benchmarks.work import touch

__all__ = ["Uvloop"]

uvloop: Any = import_module("uvloop")  # it may not be installed, as where types are checked


class Uvloop(CallsAlone):
    """Two processes, each with uvloop, protocols and msgpack."""

    variants = ("uvloop",)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        with served(lambda sock: uvloop.run(_serve(sock))) as sock:
            return uvloop.run(self._connected(sock, function, *args))

    async def _connected(
        self, sock: socket.socket, function: Callable[..., Awaitable[Any]], *args: Any
    ) -> Any:
        self._client = await _over(sock, _Client)
        return await function(*args)

    async def run_calls(self, m: int) -> None:
        await self._all_call(range(m))

    async def ask_opinions(self, m: int) -> None:
        await self._all_call([ARRAY] * m)

    async def _all_call(self, values: Sequence[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._callers):
                group.create_task(self._several(values))

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


async def _over(sock: socket.socket, protocol: Callable[[], Any]) -> Any:
    sock.setblocking(False)
    _, made = await asyncio.get_running_loop().connect_accepted_socket(protocol, sock.dup())
    return made


class _End(asyncio.Protocol):
    """What both ends have."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended = self.loop.create_future()
        self.pack, self.unpacker = msgpack.Packer().pack, unpacker_of_calls()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


class _Server(_End):
    def data_received(self, data: bytes) -> None:
        self.unpacker.feed(data)
        pack = self.pack
        answers = [pack((number, (touch(value), None))) for number, value in self.unpacker]
        if answers:
            self.transport.write(b"".join(answers))


async def _serve(sock: socket.socket) -> None:
    server = await _over(sock, _Server)
    sock.close()
    await server.ended


class _Client(_End):
    """Calls that wait for their answers, by number; what is ready together is sent together."""

    def __init__(self) -> None:
        super().__init__()
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._unsent: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.unpacker.feed(data)
        for number, answer in self.unpacker:
            self._waiting.pop(number).set_result(answer)

    def call(self, value: Any) -> asyncio.Future[Any]:
        """Have a value judged."""
        self._last = number = self._last + 1
        if not self._unsent:
            self.loop.call_soon(self._write)
        self._unsent.append(self.pack((number, value)))
        answer = self._waiting[number] = self.loop.create_future()
        return answer

    def _write(self) -> None:
        self.transport.write(b"".join(self._unsent))
        self._unsent.clear()
