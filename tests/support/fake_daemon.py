"""The other end of a client's connection, in threads: no trio, no process, no simulation."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from creamas_sc.errors import DeadlineExceeded, UnknownSimulation, to_wire
from creamas_sc.rpc.auth import DAEMON_SIMULATION, user_membership
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake, Identity

JOIN_SECONDS = 10.0
CODEC = Codec()


class Peer:
    """Serves one connected socket in a thread, until its end.

    ``hang`` answers when it is cancelled; any other method is looked up in ``methods`` and called.
    What it raises is a failure; a ConnectionAbortedError ends the connection.
    """

    def __init__(
        self,
        sock: socket.socket,
        methods: dict[str, Callable[..., Any]],
        backlog: Sequence[Frame] = (),
    ) -> None:
        self.sock = sock
        self.methods = methods
        self.backlog = backlog
        self.requests: list[tuple[Any, str, float | None]] = []
        self.cancelled: list[int] = []
        self.hanging = threading.Event()
        self.acknowledges = True
        self.thread = threading.Thread(target=self.run, name="peer", daemon=True)

    def start(self) -> Peer:
        self.thread.start()
        return self

    def run(self) -> None:
        with self.sock:
            try:
                self.converse()
            except OSError:
                return

    def converse(self) -> None:
        for frame in self.backlog:
            self.take(frame)
        reader = FrameReader()
        while data := self.sock.recv(1 << 18):
            for frame in reader.receive_data(data):
                self.take(frame)

    def take(self, frame: Frame) -> None:
        if frame.kind is Kind.CANCEL:
            self.cancelled.append(frame.call_id)
            if self.acknowledges:
                self.fail(frame.call_id, DeadlineExceeded("cancelled", acknowledged=True))
            return
        target, method, remaining = msgpack.unpackb(frame.meta)
        self.requests.append((target, method, remaining))
        if method == "hang":
            self.hanging.set()
            return
        args, kwargs = CODEC.decode(Payload(frame.body, frame.parts))
        try:
            answer = CODEC.encode(self.methods[method](*args, **kwargs))
        except ConnectionAbortedError:
            raise
        except Exception as error:
            self.fail(frame.call_id, error)
        else:
            self.send(Kind.REPLY, frame.call_id, answer)

    def fail(self, call_id: int, error: Exception) -> None:
        self.send(Kind.FAILURE, call_id, CODEC.encode(to_wire(error)))

    def send(self, kind: Kind, call_id: int, payload: Payload) -> None:
        frame = encode_frame(kind, call_id, b"", payload.body, payload.parts)
        self.sock.sendall(b"".join(frame))

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already
        self.thread.join(JOIN_SECONDS)
        assert not self.thread.is_alive()


class FakeDaemon:
    """Listens as a daemon does; `simulations` are names that can be attached to."""

    def __init__(self, path: Path) -> None:
        self.peers: list[Peer] = []
        self.simulations = {"sim": 100}
        self.ended: dict[str, Any] = {"ended": False, "expected": False, "cause": ""}
        self.key = user_membership().key
        self.python: Any = "3.11.7"
        self.script: str | None = None
        self.methods: dict[str, Callable[..., Any]] = {
            "attach": self.attach,
            "echo": lambda *args, **kwargs: (args, kwargs),
            "host_status": lambda name, pid: self.ended,
            "raise": self.fail,
            "status": self.status,
            "trigger_all": lambda *args, **kwargs: [args, kwargs],
        }
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(os.fspath(path))
        self.sock.listen()
        self.thread = threading.Thread(target=self.accept, name="daemon", daemon=True)
        self.thread.start()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            try:
                backlog = self.shake_hands(sock)
            except OSError:
                sock.close()
            else:
                # Known before it answers anybody.
                self.peers.append(Peer(sock, self.methods, backlog))
                self.peers[-1].start()

    def shake_hands(self, sock: socket.socket) -> list[Frame]:
        identity = Identity(DAEMON_SIMULATION, self.key, "supervisor", "fake", os.getpid())
        handshake, reader = Handshake(identity, client=False), FrameReader(4096)
        try:
            while not handshake.complete:
                data = sock.recv(4096)
                if not data:
                    raise ConnectionError
                frames = reader.receive_data(data)
                while frames and not handshake.complete:
                    handshake.receive(frames.pop(0))
                for piece in handshake.data_to_send():
                    sock.sendall(piece)
            return frames
        finally:
            for piece in handshake.data_to_send():
                sock.sendall(piece)

    def status(self) -> dict[str, Any]:
        return {"name": "default", "pid": os.getpid(), "python": self.python}

    def attach(self, name: str, about: dict[str, Any]) -> dict[str, Any]:
        if name not in self.simulations:
            raise UnknownSimulation(f"there is no simulation {name!r}")
        pid = self.simulations[name]
        return {"name": name, "pid": pid, "python": (3, 11), "script": self.script, "progress": {}}

    def fail(self, error: str) -> None:
        raise UnknownSimulation(error)

    def requests(self, method: str) -> int:
        """How often it was asked for."""
        return sum(asked == method for peer in self.peers for _, asked, _ in peer.requests)

    def stop_listening(self) -> None:
        """Accept no more connections; open ones stay."""
        if self.sock.fileno() >= 0:
            self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()
            self.thread.join(JOIN_SECONDS)

    def close(self) -> None:
        self.stop_listening()
        for peer in self.peers:
            peer.close()
