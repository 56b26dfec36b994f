"""The blocking end of a connection, over a pair of sockets with a peer in a thread."""

from __future__ import annotations

import logging
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from creamas_sc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    HandshakeError,
    ProtocolError,
    UnknownSimulation,
)
from creamas_sc.rpc import sync_connection
from creamas_sc.rpc.sync_connection import BlockingConnection
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import MAX_FRAME_BYTES, FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake, Identity
from tests.support.fake_daemon import CODEC, Peer

IDENTITY = Identity("sim", b"k" * 32, "client", "pid 1", 1)


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def refuse(text: str) -> Any:
    raise UnknownSimulation(text)


def drop() -> None:
    raise ConnectionAbortedError


Pair = tuple[BlockingConnection, Peer]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    connection = BlockingConnection(near, codec=CODEC, name="far")
    connection.protocol.reader.max_frame_bytes = MAX_FRAME_BYTES  # as after a handshake
    peer = Peer(far, {"echo": echo, "refuse": refuse, "drop": drop}).start()
    yield connection, peer
    connection.close()
    peer.close()


@pytest.fixture
def bare() -> Iterator[tuple[BlockingConnection, socket.socket]]:
    """A peer that does nothing by itself."""
    near, far = socket.socketpair()
    connection = BlockingConnection(near, codec=CODEC, name="far")
    with far:
        yield connection, far
        connection.close()


def ask(connection: BlockingConnection, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call with the values ``args``; ``kwargs`` are those of `BlockingConnection.call`."""
    return CODEC.decode(connection.call(None, method, CODEC.encode((args, {})), **kwargs))


def usable(connection: BlockingConnection) -> bool:
    return bool(ask(connection, "echo", "still") == (("still",), {}))


def when(event: threading.Event) -> Callable[[], None]:
    """Ctrl-C once the event is set."""

    def interrupt() -> None:
        assert event.wait(10)
        signal.raise_signal(signal.SIGINT)

    return interrupt


# ---- calls


def test_values_and_targets(pair: Pair) -> None:
    connection, peer = pair
    assert ask(connection, "echo", 1, {"a": (2, 3)}) == ((1, {"a": (2, 3)}), {})
    connection.call("tcp://localhost:1/2", "echo", CODEC.encode(((), {})), timeout=5)
    assert peer.requests == [(None, "echo", None), ("tcp://localhost:1/2", "echo", 5)]


def test_errors(pair: Pair) -> None:
    connection, _ = pair
    with pytest.raises(UnknownSimulation, match="no such"):
        ask(connection, "refuse", "no such")
    assert usable(connection)


def test_more_than_the_sockets_hold(pair: Pair) -> None:
    connection, _ = pair
    large = bytes(range(256)) * 40_000
    assert ask(connection, "echo", large, large) == ((large, large), {})


def test_events_are_passed_over(pair: Pair) -> None:
    connection, peer = pair
    peer.send(Kind.EVENT, 0, CODEC.encode("news"))
    assert usable(connection)


# ---- the end of time


def test_a_call_out_of_time_is_cancelled(pair: Pair) -> None:
    connection, peer = pair
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"hang of far did not finish in 0\.05 s") as caught:
        ask(connection, "hang", timeout=0.05)
    assert caught.value.acknowledged
    assert time.monotonic() - began < 0.3
    assert peer.cancelled == [1]
    assert usable(connection)


def test_a_peer_that_does_not_confirm(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_connection, "ACKNOWLEDGE_SECONDS", 0.05)
    connection, peer = pair
    peer.acknowledges = False
    with pytest.raises(DeadlineExceeded) as caught:
        ask(connection, "hang", timeout=0.01)
    assert not caught.value.acknowledged
    peer.send(Kind.REPLY, 1, CODEC.encode("too late"))
    assert usable(connection)


def test_an_answer_that_crosses_the_cancellation(pair: Pair) -> None:
    connection, peer = pair
    peer.acknowledges = False
    peer.cancelled = _Tells(lambda call: peer.send(Kind.REPLY, call, CODEC.encode("just in time")))
    assert ask(connection, "hang", timeout=0.01) == "just in time"


class _Tells(list[int]):
    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self.append = tell  # type: ignore[method-assign]


def test_a_request_that_is_not_read_in_time(
    bare: tuple[BlockingConnection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_connection, "ACKNOWLEDGE_SECONDS", 0.05)
    connection, _ = bare
    with pytest.raises(DeadlineExceeded):
        connection.call(None, "echo", Payload(bytes(1 << 22)), timeout=0.01)
    assert connection.interrupted
    assert not connection.alive
    with pytest.raises(ConnectionLost, match="no connection to far"):
        ask(connection, "echo")


# ---- Ctrl-C


def test_ctrl_c_cancels_the_call_and_leaves_the_connection(pair: Pair) -> None:
    connection, peer = pair
    connection._poll = _Polls(when(peer.hanging))  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        ask(connection, "hang")
    assert peer.cancelled == [1]
    assert not connection.interrupted
    assert usable(connection)


def test_a_second_ctrl_c_ends_the_wait(pair: Pair) -> None:
    connection, peer = pair
    peer.acknowledges = False
    cancelled = threading.Event()
    peer.cancelled = _Tells(lambda _: cancelled.set())
    connection._poll = _Polls(when(peer.hanging), when(cancelled))  # type: ignore[assignment]
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(connection, "hang")
    assert time.monotonic() - began < 0.35
    assert connection.interrupted


def test_ctrl_c_in_the_middle_of_a_frame_finishes_it(
    bare: tuple[BlockingConnection, socket.socket],
) -> None:
    connection, far = bare
    peers: list[Peer] = []

    def begin_to_read() -> None:
        peers.append(Peer(far, {}).start())
        signal.raise_signal(signal.SIGINT)

    connection._poll = _Polls(begin_to_read)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        connection.call(None, "hang", Payload(bytes(1 << 22)))
    assert not connection.interrupted
    (peer,) = peers
    assert peer.requests == [(None, "hang", None)]
    assert peer.cancelled == [1]
    connection.close()
    peer.close()


class _Polls:
    """Calls one function after the other, each in a wait."""

    def __init__(self, *functions: Callable[[], object]) -> None:
        self._poll = select.poll()
        self._functions = list(functions)

    def register(self, sock: socket.socket, events: int) -> None:
        self._poll.register(sock, events)

    def poll(self, timeout: float | None) -> list[Any]:
        if self._functions:
            self._functions.pop(0)()
        return self._poll.poll(timeout)


@pytest.mark.parametrize("place", ["send", "recv"])
def test_ctrl_c_while_bytes_are_on_their_way(pair: Pair, place: str) -> None:
    connection, _ = pair
    connection._sock = _Interrupts(connection._sock, place)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        ask(connection, "echo")
    assert connection.interrupted
    assert not connection.alive


class _Interrupts:
    """A socket at which a signal comes when a system call has returned and its result is unused."""

    def __init__(self, sock: socket.socket, place: str) -> None:
        self._sock, self._place = sock, place

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._sock, name)
        if name != self._place:
            return found

        def interrupted(*args: Any) -> None:
            found(*args)
            signal.raise_signal(signal.SIGINT)

        return interrupted


# ---- the peer's end


def test_a_peer_that_goes(pair: Pair) -> None:
    connection, _ = pair
    with pytest.raises(ConnectionLost, match="the connection to far was lost") as caught:
        ask(connection, "drop")
    assert caught.value.may_have_run
    assert not connection.alive
    assert not connection.interrupted
    with pytest.raises(ConnectionLost) as caught:
        ask(connection, "echo")
    assert not caught.value.may_have_run


def test_a_peer_that_goes_in_mid_frame(bare: tuple[BlockingConnection, socket.socket]) -> None:
    connection, far = bare
    frame = b"".join(encode_frame(Kind.REPLY, 1, b"", b"x" * 100))
    far.sendall(frame[:50])
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLost):
        ask(connection, "echo")


@pytest.mark.parametrize("data", [b"\xff" * 100, b"".join(encode_frame(Kind.REQUEST, 1, b"", b""))])
def test_a_peer_that_breaks_the_protocol(
    bare: tuple[BlockingConnection, socket.socket], data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    connection, far = bare
    far.sendall(data)
    with caplog.at_level(logging.CRITICAL), pytest.raises(ProtocolError):
        ask(connection, "echo")
    assert not connection.alive


def test_a_close_from_another_thread(pair: Pair) -> None:
    connection, peer = pair

    def leave() -> None:
        assert peer.hanging.wait(10)
        connection.shut_down()

    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(ConnectionLost):
        ask(connection, "hang")
    thread.join()


def test_waiting_for_the_end(pair: Pair) -> None:
    connection, peer = pair
    connection.wait_end(0.01)
    assert connection.alive
    peer.close()
    connection.wait_end(10)
    assert not connection.alive


# ---- the handshake


def shake(connection: BlockingConnection, seconds: float = 5.0) -> None:
    connection.perform_handshake(Handshake(IDENTITY, client=True), seconds)


def serve_handshake(far: socket.socket, identity: Identity) -> threading.Thread:
    def run() -> None:
        handshake, reader = Handshake(identity, client=False), FrameReader(4096)
        while not handshake.complete and (data := far.recv(4096)):
            try:
                for frame in reader.receive_data(data):
                    handshake.receive(frame)
            except HandshakeError:
                pass  # the client gets an error
            for piece in handshake.data_to_send():
                far.sendall(piece)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_handshake(bare: tuple[BlockingConnection, socket.socket]) -> None:
    connection, far = bare
    server = Identity("sim", b"k" * 32, "supervisor", "there", 2)
    thread = serve_handshake(far, server)
    shake(connection)
    thread.join()
    assert connection.alive
    assert connection.protocol.reader.max_frame_bytes == MAX_FRAME_BYTES


@pytest.mark.parametrize(
    ("simulation", "key", "message"),
    [("sim", b"q" * 32, "wrong key"), ("other", b"k" * 32, "of simulation 'other'")],
)
def test_a_peer_that_is_none_of_ours(
    bare: tuple[BlockingConnection, socket.socket], simulation: str, key: bytes, message: str
) -> None:
    connection, far = bare
    thread = serve_handshake(far, Identity(simulation, key, "supervisor", "there", 2))
    with pytest.raises(HandshakeError, match=message):
        shake(connection)
    assert not connection.alive
    thread.join()


def test_a_peer_that_speaks_something_else(
    bare: tuple[BlockingConnection, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    connection, far = bare
    far.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with caplog.at_level(logging.CRITICAL), pytest.raises(HandshakeError, match="another protocol"):
        shake(connection)
    assert not connection.alive


def test_a_peer_that_says_nothing(bare: tuple[BlockingConnection, socket.socket]) -> None:
    connection, _ = bare
    with pytest.raises(DeadlineExceeded):
        shake(connection, 0.02)
    assert not connection.alive


def test_a_peer_that_hangs_up(bare: tuple[BlockingConnection, socket.socket]) -> None:
    connection, far = bare
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLost):
        shake(connection)
