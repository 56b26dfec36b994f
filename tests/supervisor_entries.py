"""Entry functions for the supervisor's tests, well-behaved and not."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time

import trio

from supervisor.actor import Control
from supervisor.seam.runtime import tractor


async def obey(spec: bytes, control: Control) -> bytes:
    """Come up, and end when asked."""
    await control.ready(spec + b" ready")
    return await control.wait_stop() + b" stopped"


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


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return "this listing"


async def fail_to_start(spec: bytes, control: Control) -> bytes:
    """Raise what ``spec`` names before being ready."""
    errors = {"value": ValueError, "exit": SystemExit, "interrupt": KeyboardInterrupt}
    raise errors[spec.decode()]("said why")


async def fail_later(spec: bytes, control: Control) -> bytes:
    """Raise when asked to stop, or at once after being ready."""
    await control.ready()
    if spec == b"on stop":
        await control.wait_stop()
    raise RuntimeError("broke")


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
    """Double-fork a child into a session of its own; ``info`` is its pid."""
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
    """Send what is no message, over and over, and live on."""
    await control.ready()
    os.write(_supervisor_fd(), ((4).to_bytes(4, "little") + b"\xc1\xc1\xc1\xc1") * 10)
    return await control.wait_stop()


def _supervisor_fd() -> int:
    fd: int = tractor.current_actor()._parent_chan.msgstream.stream.socket.fileno()
    return fd
