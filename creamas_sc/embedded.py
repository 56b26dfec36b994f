"""A supervisor of the script's own: started on first use, gone when the script is.

The script starts the keeper with one end of a socketpair and speaks the frame protocol with the
supervisor over the other. When that connection closes, for whatever reason, the supervisor ends
everything it started and then itself.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio
from anyio.abc import TaskStatus

from creamas_sc.errors import HOW_TO_INSTALL, ConnectionLost, StartError
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.connection import Connection
from creamas_sc.wire.streams import ConnectedStream

__all__ = ["PrivateSupervisor", "actor_order"]

log = logging.getLogger(__name__)

# What the zygote imports once for all slaves; nothing of a user's, no numpy.
PRELOADED = ("creamas_sc.slave", "creamas_sc.mp", "creamas_sc.core.simulation")
# After the connection is closed: the supervisor's whole ladder, and some more.
END_SECONDS = 3.0
KILL_SECONDS = 1.0
# What the supervisor gives slaves to become ready, where the caller says nothing.
START_SECONDS = 30.0

Told = Mapping[str, Any]


def actor_order(slot: str, name: str, entry: str, spec: bytes) -> dict[str, Any]:
    """The order for a process that finds modules, files and settings where this one does."""
    cwd = os.getcwd()
    return {
        "slot": slot,
        "name": name,
        "entry": entry,
        "spec": spec,
        "environ": {_plain(key): _plain(value) for key, value in os.environ.items()},
        "cwd": _plain(cwd),
        "path": [_plain(entry or cwd) for entry in sys.path],
    }


def _plain(text: str) -> str:
    """Bytes of the operating system's, a character each: not all of them are UTF-8."""
    return os.fsencode(text).decode("latin-1")


class PrivateSupervisor:
    """Starts, watches and ends actors for this process.

    Args:
        on_exit: Told of each actor that ends: slot, pid, exit_code, signal, error, expected.
    """

    def __init__(self, on_exit: Callable[[Told], None]) -> None:
        self._on_exit = on_exit
        self._codec = Codec()
        self._connection: Connection | None = None
        self._closing = trio.Event()
        self.gone = trio.Event()

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the supervisor and keep it until `aclose` or cancellation; then nothing is left.

        Raises:
            StartError: There can be no supervisor here; the message says what to do.
        """
        ours, keeper = _start_keeper()
        connection = self._connection = Connection(
            ConnectedStream(ours), on_event=self._take_event, name="the supervisor"
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._mind_closing, connection)
                task_status.started()
                await connection.run()  # ends with `aclose`, or with the supervisor
                nursery.cancel_scope.cancel()
        finally:
            ours.close()
            try:
                with trio.CancelScope(shield=True):
                    await _see_off(keeper)
            finally:
                self.gone.set()

    async def _mind_closing(self, connection: Connection) -> None:
        await self._closing.wait()
        await connection.aclose()

    async def start(
        self, orders: Sequence[Told], timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """Start actors, all or none; their slot, pid and info, in order.

        Args:
            timeout: Seconds until all are ready, 30 by default.

        Raises:
            StartError: One did not come up, or the supervisor itself did not.
        """
        try:
            # The supervisor keeps the deadline; ours is for one that never comes up.
            with trio.fail_after((timeout or START_SECONDS) + END_SECONDS):
                return await self._call("start", list(orders), timeout)  # type: ignore[no-any-return]
        except ConnectionLost as error:
            raise StartError("the supervisor ended while it was starting slaves") from error
        except trio.TooSlowError as error:
            raise StartError("the supervisor does not answer") from error

    async def stop(
        self, slots: Sequence[str] | None, grace: float, payload: bytes
    ) -> list[dict[str, Any]]:
        """End actors by the ladder and return their receipts."""
        return await self._call("stop", slots, grace, payload)  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """End the supervisor and whatever it still runs; returns when all processes are gone."""
        self._closing.set()
        with trio.CancelScope(shield=True):
            await self.gone.wait()

    async def _call(self, method: str, *args: Any) -> Any:
        assert self._connection is not None
        answer = await self._connection.call(None, method, self._codec.encode((args, {})))
        return self._codec.decode(answer)

    def _take_event(self, name: str, payload: Payload) -> None:
        if name == "exited":
            self._on_exit(self._codec.decode(payload))


def _start_keeper() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    package = _supervisor_package()
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            keeper = subprocess.Popen(
                [sys.executable, "-P", str(package / "__main__.py"), str(theirs.fileno()),
                 str(os.getpid()), *PRELOADED],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise StartError(f"cannot start the supervisor: {error}") from error
    return ours, keeper


def _supervisor_package() -> Path:
    """Folder of the package that is started.

    Raises:
        StartError: It cannot run here.
    """
    if sys.platform != "linux":
        raise StartError("slaves need Linux, which this system is not")
    missing = [name for name in ("tractor", "trio", "supervisor") if find_spec(name) is None]
    if missing:
        raise StartError(
            f"slaves need {', '.join(missing)}, which this Python lacks: {HOW_TO_INSTALL}"
        )
    spec = find_spec("supervisor.keeper")
    if spec is None or spec.origin is None:
        raise StartError(
            "the package 'supervisor' of this Python is not the one of creamas-sc but the process "
            "manager of that name: use an environment without it"
        )
    return Path(spec.origin).parent


async def _see_off(keeper: subprocess.Popen[bytes]) -> None:
    """Wait for the keeper, the last to die, and reap it; force it past its time."""
    pidfd = os.pidfd_open(keeper.pid)
    try:
        for act, seconds in ((signal.SIGCONT, END_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            keeper.send_signal(act)
            with trio.move_on_after(seconds):
                await trio.lowlevel.wait_readable(pidfd)
                keeper.wait()
                return
            log.warning("the supervisor did not end within %g s", seconds)
    finally:
        os.close(pidfd)
