"""Entry functions for the supervisor's tests, well-behaved and not."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from creamas_sc.rpc import fd_passing
from creamas_sc.rpc.connection import Connection, Request
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.supervisor_client.connection import SupervisorConnection
from creamas_sc.supervisor_client.messages import ActorOrder
from creamas_sc.supervisor_client.spec import actor_order
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader
from supervisor.actors.entry_runner import Control
from supervisor.actors.tractor_adapter.compat import tractor

CODEC = Codec()
# Beyond it a start has been answered.
MOMENT_SECONDS = 0.05


async def obey(spec: bytes, control: Control) -> bytes:
    """Come up, and end when asked."""
    await control.ready(spec + b" ready")
    return await control.wait_stop() + b" stopped"


async def abandon(spec: bytes, control: Control) -> bytes:
    """Start programs that go on alone, and end when asked."""
    await trio.to_thread.run_sync(os.system, "true & true & true &")
    await control.ready()
    return await control.wait_stop()


async def tell_place(spec: bytes, control: Control) -> bytes:
    """Tell where and how this process runs."""
    place = {
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "path": sys.path,
        "fds": {int(fd): _target(fd) for fd in os.listdir("/proc/self/fd")},
        "numpy": "numpy" in sys.modules,
        "pid": os.getpid(),
    }
    await control.ready(json.dumps(place).encode())
    return await control.wait_stop()


async def tell_descriptors(spec: bytes, control: Control) -> bytes:
    """Tell what this process inherited."""
    await control.ready(json.dumps(control.descriptors).encode())
    return await control.wait_stop()


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return "this listing"


async def fail_to_start(spec: bytes, control: Control) -> bytes:
    """Raise what ``spec`` names before being ready."""
    errors = {"value": ValueError, "exit": SystemExit, "interrupt": KeyboardInterrupt}
    raise errors[spec.decode()]("said why")


class Unflushable(io.StringIO):
    """A stream that cannot be flushed."""

    def flush(self) -> None:
        raise RuntimeError("no flush")


async def replace_stdout(spec: bytes, control: Control) -> bytes:
    """Leave with a standard output that cannot be flushed."""
    sys.stdout = Unflushable()
    await control.ready()
    return await control.wait_stop()


async def fail_later(spec: bytes, control: Control) -> bytes:
    """Raise when asked to stop, or at once after being ready."""
    await control.ready()
    if spec == b"on stop":
        await control.wait_stop()
    raise RuntimeError("broke" if spec != b"undecodable" else "no file \udcff")


async def return_at_once(spec: bytes, control: Control) -> bytes:
    """End unasked."""
    await control.ready()
    return b"bored"


async def return_text(spec: bytes, control: Control) -> bytes:
    """Break the contract of entries."""
    await control.ready()
    return "no bytes"  # type: ignore[return-value]


async def never_ready(spec: bytes, control: Control) -> bytes:
    """Never say so."""
    await trio.sleep_forever()
    raise AssertionError


async def die_starting(spec: bytes, control: Control) -> bytes:
    """Be killed, as by the out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


async def shield(spec: bytes, control: Control) -> bytes:
    """Hear no request and no cancellation."""
    await control.ready()
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()
    raise AssertionError


async def ignore_request(spec: bytes, control: Control) -> bytes:
    """Hear no request, but cancellation."""
    await control.ready()
    await trio.sleep_forever()
    raise AssertionError


async def loop(spec: bytes, control: Control) -> bytes:
    """Never come back to trio."""
    await control.ready()
    while True:
        pass


async def hold_gil(spec: bytes, control: Control) -> bytes:
    """Never come back to the interpreter."""
    await control.ready()
    re.match(r"(a+)+$", "a" * 64 + "b")
    raise AssertionError


async def ignore_sigterm(spec: bytes, control: Control) -> bytes:
    """Never come back to trio, and ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    await control.ready()
    while True:
        _sleep_long()


async def fork_away(spec: bytes, control: Control) -> bytes:
    """Double-fork a child into a new session; ``info`` is its pid."""
    await control.ready(_double_fork())
    return await control.wait_stop()


async def fork_away_and_loop(spec: bytes, control: Control) -> bytes:
    """Both."""
    await control.ready(_double_fork())
    while True:
        pass


def _double_fork() -> bytes:
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(write, b"%d" % os.getpid())
            _sleep_long()
        os._exit(0)
    return os.read(read, 32)


def _sleep_long() -> None:
    time.sleep(1000)


async def fail_when_cancelled(spec: bytes, control: Control) -> bytes:
    """Raise beside a task that is cancelled as it should."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("while cancelled")
    raise AssertionError


async def cut_frame(spec: bytes, control: Control) -> bytes:
    """Be killed in the middle of a message to the supervisor."""
    await control.ready()
    os.write(_supervisor_fd(), (1000).to_bytes(4, "little") + b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


async def send_garbage(spec: bytes, control: Control) -> bytes:
    """Send bytes that are not a message, again and again, without ending."""
    await control.ready()
    os.write(_supervisor_fd(), ((4).to_bytes(4, "little") + b"\xc1\xc1\xc1\xc1") * 10)
    return await control.wait_stop()


def _supervisor_fd() -> int:
    fd: int = tractor.current_actor()._parent_chan.msgstream.stream.socket.fileno()
    return fd


async def slow_to_stop(spec: bytes, control: Control) -> bytes:
    """Take half a second over a request to stop."""
    await control.ready(b"[]")
    payload = await control.wait_stop()
    await trio.sleep(0.5)
    return b"late with " + payload


async def obstinate(spec: bytes, control: Control) -> bytes:
    """As `ignore_request`, for a host."""
    await control.ready(b"[]")
    await trio.sleep_forever()
    raise AssertionError


async def return_later(spec: bytes, control: Control) -> bytes:
    """End unasked, a moment after being ready."""
    await control.ready(b"[]")
    await trio.sleep(MOMENT_SECONDS)
    return b"bored"


async def fail_unasked(spec: bytes, control: Control) -> bytes:
    """Raise, a moment after being ready."""
    await return_later(spec, control)
    raise RuntimeError("broke")


async def exit_unasked(spec: bytes, control: Control) -> bytes:
    """Exit past all that would tell of it."""
    await return_later(spec, control)
    os._exit(0)


async def reach_for_host(spec: bytes, control: Control) -> bytes:
    """Start something in the host's own slot."""
    hand = trio.socket.from_stdlib_socket(socket.socket(fileno=control.descriptors[0]))
    first = await fd_passing.receive(hand)
    assert first is not None
    line = SupervisorConnection(first.sock, lambda event: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.run)
        await line.start([actor_order("host", "host", f"{__name__}:obey", b"")])
    return b""


async def host(spec: bytes, control: Control) -> bytes:
    """A daemon's host in short; ``spec`` is JSON of a `Host`'s fields."""
    return await Host(control, **json.loads(spec or b"{}")).run()


@dataclass
class Host:
    """Takes clients and answers ``echo`` to them; has slaves; describes itself.

    Attributes:
        slaves: How many it starts.
        runs: Their entry.
        timeout: Seconds they have to be ready.
        clients: How many it has.
        lost: Slots of slaves that have ended unasked.
    """

    control: Control
    slaves: int = 0
    runs: str = "obey"
    timeout: float | None = None
    clients: int = 0
    lost: list[str] = field(default_factory=list)

    async def run(self) -> bytes:
        """From the first hand-over to the request to stop."""
        hand = trio.socket.from_stdlib_socket(socket.socket(fileno=self.control.descriptors[0]))
        with hand:
            first = await fd_passing.receive(hand)
            assert first is not None
            assert (first.kind, first.backlog) == (fd_passing.CONTROL, b"")
            line = SupervisorConnection(first.sock, self._note_exit, self._serve)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(line.run)
                nursery.start_soon(self._take_clients, hand, nursery)
                orders = [self._order(f"slave-{i}") for i in range(self.slaves)]
                event = await line.call("start", orders, self.timeout)
                await self.control.ready(json.dumps([each["pid"] for each in event]).encode())
                payload = await self.control.wait_stop()
                await line.stop([each["slot"] for each in event], 1.0, b"")
                nursery.cancel_scope.cancel()
        return b"closed with " + payload

    def _order(self, slot: str) -> ActorOrder:
        entry = f"{__name__}:{self.runs}"
        return actor_order(slot, slot, entry, b"")

    def _note_exit(self, event: Mapping[str, Any]) -> None:
        if not event["expected"]:
            self.lost.append(event["slot"])

    async def _take_clients(self, hand: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while (handed := await fd_passing.receive(hand)) is not None:
            reader = FrameReader()
            connection = Connection(
                ConnectedStream(handed.sock),
                self._serve,
                reader=reader,
                backlog=reader.receive_data(handed.backlog),
                name=handed.note,
            )
            nursery.start_soon(self._keep, connection)

    async def _keep(self, connection: Connection) -> None:
        self.clients += 1
        await connection.run()
        self.clients -= 1

    def _serve(self, request: Request) -> Payload:
        args, _ = CODEC.decode(request.payload)
        answers: dict[str, Any] = {
            "ping": True,
            "describe": {"clients": self.clients, **({"lost": self.lost} if self.lost else {})},
            "attach": {"pid": os.getpid(), "asked": list(args)},
            "echo": args,
        }
        return CODEC.encode(answers[request.method])
