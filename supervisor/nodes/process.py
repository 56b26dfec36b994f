"""A node's process: joins a supervisor, again and again if it loses that, and is asked to end.

Each `Stay` has a tree of its own, so after a loss nothing goes on that the supervisor may have
started elsewhere. Whoever has started the process can end it by a signal; an engine that has given
it the key over a descriptor, by closing that, or by its own death.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
from dataclasses import dataclass
from typing import Any

import trio

from creamas_sc.errors import BadValue, ConnectionLost
from creamas_sc.runtime.coroutines import backoff
from creamas_sc.runtime.log_setup import close_log, open_log
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.supervisor_client.messages import NodeAbout
from creamas_sc.supervisor_client.node_key import KEY_BYTES, parse_key
from supervisor import timeouts
from supervisor.nodes import channel
from supervisor.nodes.about import describe
from supervisor.nodes.stay import Stay
from supervisor.tree import linux

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What a line with a key is cut at.
_LINE_BYTES = 4 * KEY_BYTES


@dataclass(frozen=True)
class NodeOptions:
    """What a node is started with.

    Attributes:
        place: Host and port at which the supervisor listens for nodes.
        key: What it has proved itself with; None to read it, a line, from ``key_fd``.
        key_fd: A pipe or socket at whose end the node ends; None for none.
        name: What it wants to be called.
        host: Address at which its slaves listen; empty for that from which it connects.
        cores: What it offers; None for all.
        engine: Its id in the engine that started it.
        retry_seconds: How long it tries to join, each time.
    """

    place: tuple[str, int]
    key: bytes | None
    key_fd: int | None
    name: str
    host: str
    cores: int | None
    engine: str
    retry_seconds: float


def run(options: NodeOptions) -> int:
    """Be a node until it is asked to end, or cannot join.

    Returns:
        The exit code: 0, 130 after SIGINT, 128 + its number after a second signal.

    Raises:
        ConnectionLost: The supervisor was not reached for too long.
        HandshakeError: It has another key.
        CreamasError: It refuses this node; or this node cannot start here.
    """
    # Before all else: the parent of now is the one that is watched.
    parent = _open_parent() if options.key_fd is not None else None
    linux.name_process("creamas-node")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would cost the tree's exit code
    open_log(None, console=True)
    try:
        return trio.run(_Node(options, parent).run)
    finally:
        close_log()


def _open_parent() -> int | None:
    """A pidfd of the parent; None if it is outside of this process's namespace."""
    try:
        return os.pidfd_open(os.getppid())
    except OSError:
        return None


class _Node:
    def __init__(self, options: NodeOptions, parent: int | None) -> None:
        self._options = options
        self._parent = parent
        self._instance = os.urandom(16).hex()
        self._stay: Stay | None = None
        self._scope = trio.CancelScope()
        self._signals: list[int] = []

    async def run(self) -> int:
        """Run until all is over; returns the exit code."""
        heeded = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        with trio.open_signal_receiver(*heeded) as signals:
            async with open_unwrapping_nursery() as nursery:
                nursery.start_soon(self._take_signals, signals)
                with self._scope:
                    key = await self._key(nursery)
                    await self._keep_joined(key)
                nursery.cancel_scope.cancel()
        if len(self._signals) > 1:
            return 128 + self._signals[-1]
        return 128 + signal.SIGINT if signal.SIGINT in self._signals else 0

    async def _key(self, nursery: trio.Nursery) -> bytes:
        options = self._options
        if options.key_fd is None:
            assert options.key is not None
            return options.key
        key = await _read_key(options.key_fd)
        nursery.start_soon(self._watch, options.key_fd, "its engine closed its input")
        if self._parent is not None:
            nursery.start_soon(self._watch, self._parent, "the process that started it is gone")
        return key

    # ---- joining

    async def _keep_joined(self, key: bytes) -> None:
        while True:
            stay = await self._join(key)
            if stay.left:
                log.info("this node ends: %s", stay.why)
                return
            log.warning("this node is lost, and joins again: %s", stay.why)

    async def _join(self, key: bytes) -> Stay:
        """A stay, from its beginning to its end."""
        host, port = self._options.place
        give_up_at = trio.current_time() + self._options.retry_seconds
        for pause in backoff():
            try:
                stream = await channel.connect(host, port, key)
                stay = self._stay = Stay(stream, self._about(stream))
                try:
                    await stay.run()
                    return stay
                finally:
                    self._stay = None
            except ConnectionLost as error:
                if trio.current_time() + pause > give_up_at:
                    raise
                log.debug("not joined yet: %s", error)
            await trio.sleep(pause)  # nothing tells when something will listen there
        raise AssertionError("there is always another pause")

    def _about(self, stream: channel.TlsStream) -> NodeAbout:
        options = self._options
        host = options.host or stream.local_host
        return describe(options.name, self._instance, host, options.cores, options.engine)

    # ---- its end

    def _end(self, why: str) -> None:
        log.info("this node is to end: %s", why)
        if self._stay is not None and self._stay.joined:
            self._stay.leave(why)
        else:
            self._scope.cancel()

    async def _take_signals(self, signals: Any) -> None:
        async for number in signals:
            self._signals.append(number)
            if len(self._signals) == 1:
                self._end(f"it got {signal.Signals(number).name}")
            elif self._stay is not None:
                self._stay.kill()

    async def _watch(self, descriptor: int, why: str) -> None:
        """Wait for the end of a pipe, socket or process."""
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            if descriptor == self._parent or not _read(descriptor):
                break
        self._end(why)


async def _read_key(descriptor: int) -> bytes:
    """Read the key, a line, from a pipe or socket.

    Raises:
        BadValue: It is none, has no key, or has it too late.
    """
    source = f"descriptor {descriptor}"
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError as error:
        raise BadValue(f"--key-fd: {source}: {error.strerror}") from error
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        raise BadValue(f"--key-fd: {source} is no pipe, which an engine keeps open: use --key-file")
    line = b""
    with trio.move_on_after(timeouts.JOIN_SECONDS):
        while b"\n" not in line and len(line) < _LINE_BYTES:
            await trio.lowlevel.wait_readable(descriptor)
            piece = _read(descriptor)
            if not piece:
                break
            line += piece
    return parse_key(line, source)


def _read(descriptor: int) -> bytes:
    """What is there to read; nothing at its end."""
    try:
        return os.read(descriptor, _LINE_BYTES)
    except OSError:  # such as a socket that was reset
        return b""
