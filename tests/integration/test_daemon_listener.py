"""A daemon's listener: whom it accepts and whom it refuses; clients that are in notice nothing."""

from __future__ import annotations

import itertools
import os
import random
import resource
import secrets
import signal
import stat
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgpack
import pytest
import trio

from creamas_sc.errors import (
    BadArguments,
    CreamasError,
    HandshakeError,
    StartError,
    UnknownSimulation,
)
from creamas_sc.rpc.auth import user_membership
from creamas_sc.rpc.socket_stream import ConnectedStream
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, FrameReader, Kind, encode_frame
from creamas_sc.wire.handshake import Handshake, Identity
from supervisor.daemon.process import Settings, run, start
from tests.support.daemon_clients import (
    Client,
    connect_socket,
    connected,
    order,
    shake_hands,
    user_identity,
)
from tests.support.daemons import NAME, Daemon, running

BOUND_SECONDS = 30.0
CUT_SECONDS = 5.0
ANSWER_SECONDS = 4.0  # before it would be cut
# Frames at random, and how many a connection brings, which ends with the first that is none.
MUTATED = 10_000
BATCH = 4
CODEC = Codec()
Opened = list[ConnectedStream]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("logs")) as daemon:
        yield daemon


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[Client]:
    """A good client beside what the test does; it has a simulation."""
    with trio.fail_after(BOUND_SECONDS):
        async with connected(daemon.socket) as client:
            pid = (await client.create("good"))["pid"]
            yield client
            assert (await client.call("ls"))[0]["pid"] == pid
            assert (await client.call("close", "good"))["graceful"]


@asynccontextmanager
async def opened(daemon: Daemon, count: int) -> AsyncIterator[Opened]:
    """Connections that have said nothing yet."""
    streams: Opened = []
    try:
        for _ in range(count):
            streams.append(await connect_socket(daemon.socket))
            await trio.lowlevel.checkpoint()
        yield streams
    finally:
        for stream in streams:
            await anyio.aclose_forcefully(stream)


async def read_to_end(stream: ConnectedStream) -> bytes:
    said = b""
    try:
        while True:
            said += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return said


def request(method: str, *args: object, call_id: int = 1) -> bytes:
    meta = msgpack.packb((None, method, None))
    body = CODEC.encode((args, {}))
    return b"".join(encode_frame(Kind.REQUEST, call_id, meta, body.body, body.parts))


async def check_new_lines(daemon: Daemon, before: str, what: str, count: int = 1) -> None:
    """Check that the log has ``count`` lines more, all of ``what``."""

    def lines() -> list[str]:
        return daemon.log[len(before) :].splitlines()

    with trio.fail_after(ANSWER_SECONDS):
        while len(lines()) < count:  # noqa: ASYNC110 - a connection is closed first, then logged
            await trio.sleep(0.01)
    assert [line for line in lines() if what not in line] == []
    assert len(lines()) == count


# ---- where it listens


async def test_a_second_daemon_of_a_name_is_refused(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    text = rf"daemon '{NAME}' runs already \(pid {daemon.process.pid}\)"
    with pytest.raises(StartError, match=text):
        start(Settings(NAME, tmp_path))
    with pytest.raises(StartError, match=text):
        run(Settings(NAME, tmp_path), lambda _: pytest.fail("announced"))


def test_the_socket_is_this_users_alone(daemon: Daemon) -> None:
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.socket.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((daemon.log_folder / f"{NAME}.log").stat().st_mode) == 0o600


# ---- which connections are accepted


@pytest.mark.skipif(os.getuid() != 0, reason="takes on another user id")
async def test_another_user_is_refused_even_if_the_folders_mode_admits_it(
    daemon: Daemon, client: Client
) -> None:
    code = (
        "import os, socket; s = socket.socket(socket.AF_UNIX); os.setuid(65534); "
        f"s.connect('{NAME}.sock'); print(s.recv(1000))"
    )
    before = daemon.log
    folder = daemon.socket.parent
    folder.chmod(0o711)
    daemon.socket.chmod(0o666)
    try:
        done = await trio.run_process(
            [sys.executable, "-c", code], cwd=folder, capture_stdout=True, capture_stderr=True
        )
    finally:
        daemon.socket.chmod(0o600)
        folder.chmod(0o700)
    assert (done.returncode, done.stdout) == (0, b"b''\n"), done.stderr
    await check_new_lines(daemon, before, "of user 65534")


async def test_a_wrong_key_is_refused_and_told(daemon: Daemon, client: Client) -> None:
    before = daemon.log
    async with opened(daemon, 1) as (stream,):
        with pytest.raises(HandshakeError):
            await shake_hands(stream, user_identity(secrets.token_bytes(32)))
        await read_to_end(stream)
    await check_new_lines(daemon, before, "the peer refused: a wrong key")


def hello(simulation: str) -> bytes:
    key = user_membership().key
    return Handshake(Identity(simulation, key, "client", "x", 1), client=True).data_to_send()[0]


GREETINGS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "random": random.Random(1).randbytes(4000),
    "a request first": request("ls"),
    "over the limit": struct.pack("!IBxHII", 4097, 1, 0, 0, 0),
    "4 GiB": struct.pack("!IBxHII", 2**32 - 1, 1, 0, 0, 0),
    "malformed hello": b"".join(encode_frame(Kind.HELLO, 0, b"", b"\xc1")),
    "another simulation": hello("user"),
}


@pytest.mark.parametrize("greeting", GREETINGS)
async def test_a_stranger_is_refused_with_one_log_line(
    daemon: Daemon, client: Client, greeting: str
) -> None:
    before = daemon.log
    async with opened(daemon, 1) as (stream,):
        await stream.send(GREETINGS[greeting])
        with trio.fail_after(ANSWER_SECONDS):
            await read_to_end(stream)
    await check_new_lines(daemon, before, f"refused a connection of pid {os.getpid()}: ")


SECOND = {
    "a reply": b"".join(encode_frame(Kind.REPLY, 1)),
    "malformed request": b"".join(encode_frame(Kind.REQUEST, 1, b"\xc1")),
    "over the limit": struct.pack("!IBxHII", (64 << 20) + 1, 2, 0, 0, 0),
    "unknown kind": struct.pack("!IBxHII", 1, 99, 0, 0, 0),
}


@pytest.mark.parametrize("message", SECOND)
async def test_a_bad_first_request_is_refused_with_one_log_line(
    daemon: Daemon, client: Client, message: str
) -> None:
    before = daemon.log
    async with opened(daemon, 1) as (stream,):
        await shake_hands(stream)
        await stream.send(SECOND[message])
        with trio.fail_after(ANSWER_SECONDS):
            assert await read_to_end(stream) == b""
    await check_new_lines(daemon, before, f"refused a connection of pid {os.getpid()}: ")


@pytest.mark.slow
async def test_half_open_connections_are_cut_and_others_notice_nothing(
    daemon: Daemon, client: Client
) -> None:
    before = daemon.log
    began = trio.current_time()
    silent = 1000
    async with opened(daemon, silent + 3) as streams:
        half, proved, begun = streams[silent:]
        await half.send(hello("creamas-supervisor")[:-5])
        for stream in (proved, begun):
            await shake_hands(stream)
        await begun.send(request("ls")[:-1])
        async with trio.open_nursery() as nursery:

            async def expect_end(stream: ConnectedStream) -> None:
                await read_to_end(stream)
                assert CUT_SECONDS - 0.1 < trio.current_time() - began < CUT_SECONDS + 3

            for stream in streams:
                nursery.start_soon(expect_end, stream)
            slowest = 0.0
            for _ in range(100):
                asked = trio.current_time()
                await client.call("status")
                slowest = max(slowest, trio.current_time() - asked)
            assert slowest < 1.0
    # Each reason once: the others are counted, and nobody fills the log.
    await check_new_lines(daemon, before, "came in time", 2)


@pytest.mark.slow
async def test_connections_have_a_number(daemon: Daemon, client: Client) -> None:
    async with opened(daemon, 1023) as streams:
        await client.call("ls")
        async with opened(daemon, 1) as (refused,):
            with trio.fail_after(ANSWER_SECONDS):
                assert await read_to_end(refused) == b""
        assert "1024 are open" in daemon.log
        for stream in streams[:2]:
            await anyio.aclose_forcefully(stream)
        while True:  # until it has noticed
            async with opened(daemon, 1) as (stream,):
                try:
                    await shake_hands(stream)
                    break
                except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                    continue


@pytest.mark.slow
async def test_mutated_frames_change_nothing(daemon: Daemon, client: Client) -> None:
    chance = random.Random(7)
    frames = [request("ls"), request("inspect", "good", call_id=2), *GREETINGS.values()]
    frames += [b"".join(encode_frame(kind, 1, b"x" * 9, b"y" * 9, [b"z" * 9])) for kind in Kind]

    def mutated() -> bytes:
        frame = bytearray(chance.choice(frames))
        for _ in range(chance.randint(1, 3)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        return bytes(frame)

    sent = 0

    async def pester(proved: bool) -> None:
        nonlocal sent
        while sent < MUTATED:
            async with opened(daemon, 1) as (stream,):
                if proved:
                    await shake_hands(stream)
                    await stream.send(request("ls"))
                with trio.move_on_after(0.05):
                    try:
                        await stream.send(b"".join(mutated() for _ in range(BATCH)))
                    except anyio.BrokenResourceError:
                        continue
                    sent += BATCH
                    await read_to_end(stream)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(pester, number % 2 == 0)
        for _ in range(50):
            assert (await client.call("ls"))[0]["host"] == {"clients": 0}
    assert sent >= MUTATED
    assert "Traceback" not in daemon.log
    assert "internal" not in daemon.log


# ---- which connections are handed to a host


async def test_what_comes_behind_the_request_to_attach_goes_with_it(
    daemon: Daemon, client: Client
) -> None:
    identity = Identity("creamas-supervisor", user_membership().key, "client", "x", 1)
    async with opened(daemon, 1) as (stream,):
        handshake = Handshake(identity, client=True)
        reader = FrameReader()
        (first,) = handshake.data_to_send()
        await stream.send(first)
        while not handshake.complete:
            for frame in reader.receive_data(await stream.receive()):
                handshake.receive(frame)
        (proof,) = handshake.data_to_send()
        big = b"x" * (1 << 20)
        behind = request("echo", big, call_id=2)
        answers: list[Frame] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send, proof + request("attach", "good", {}) + behind)
            while len(answers) < 2:
                answers += reader.receive_data(await stream.receive())
    assert [answer.kind for answer in answers] == [Kind.REPLY, Kind.REPLY]
    assert CODEC.decode(Payload(answers[1].body, answers[1].parts)) == (big,)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("nobody", {}), UnknownSimulation),
        ((), BadArguments),
        ((3, {}), BadArguments),
        (("good", {"x": b"x" * (1 << 15)}), BadArguments),
        ((Path, {}), BadArguments),
    ],
)
async def test_a_bad_attach_is_refused(
    daemon: Daemon, client: Client, args: tuple[object, ...], error: type[CreamasError]
) -> None:
    async with connected(daemon.socket) as other:
        with pytest.raises(error):
            await other.call("attach", *args)
        await other.connection.closed.wait()


async def test_a_client_handed_to_a_host_does_not_count_for_the_daemon(
    daemon: Daemon, client: Client
) -> None:
    async with connected(daemon.socket) as other:
        await other.call("attach", "good", {})
        while (await client.call("status"))["clients"] != 1:
            pass
        supervisor = daemon.family["supervisor"]
        before = len(os.listdir(f"/proc/{supervisor}/fd"))
    await client.call("status")
    assert len(os.listdir(f"/proc/{supervisor}/fd")) == before


# ---- out of descriptors


async def test_without_descriptors_clients_wait_and_creating_is_refused(
    daemon: Daemon, client: Client
) -> None:
    supervisor = daemon.family["supervisor"]
    there = len(os.listdir(f"/proc/{supervisor}/fd"))
    limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (there + 2, limits[1]))
    try:
        async with opened(daemon, 10):
            with pytest.raises(CreamasError):
                await client.create("one")
            assert [each["name"] for each in await client.call("ls")] == ["good"]
            while "cannot accept connections now: Too many open files" not in daemon.log:
                await client.call("ls")
    finally:
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
    async with connected(daemon.socket) as other:
        await other.create("one")
        await other.call("close", "one")


async def test_a_host_without_descriptors_loses_that_client_alone(
    daemon: Daemon, client: Client
) -> None:
    pid = (await client.call("inspect", "good"))["pid"]
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    lowest_free = next(number for number in itertools.count() if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        async with connected(daemon.socket) as other:
            with pytest.raises(CreamasError):
                await other.call("attach", "good", {})
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    async with connected(daemon.socket) as other:
        await other.call("attach", "good", {})


async def test_a_client_that_does_not_read_slows_nobody_down(
    daemon: Daemon, client: Client
) -> None:
    async with opened(daemon, 1) as (stream,):
        await shake_hands(stream)
        asked = b"".join(request("inspect", "good", call_id=number) for number in range(2000))
        with trio.move_on_after(0.5):
            await stream.send(asked)
        with trio.fail_after(ANSWER_SECONDS):
            await client.call("ls")


@pytest.mark.slow
async def test_what_waits_for_one_client_is_bounded(daemon: Daemon, client: Client) -> None:
    def resident_bytes() -> int:
        return (
            int(Path(f"/proc/{supervisor}/statm").read_text().split()[1]) * resource.getpagesize()
        )

    supervisor = daemon.family["supervisor"]
    large = order()
    large["environ"] |= {f"LARGE{number}": "x" * (1 << 20) for number in range(16)}
    host = (await client.call("create", "large", large, {}))["pid"]
    os.kill(host, signal.SIGSTOP)  # all calls wait for it, and have their answers at once
    try:
        before = most = resident_bytes()
        async with opened(daemon, 1) as (stream,):
            await shake_hands(stream)
            asked = [request("inspect", "large", call_id=number) for number in range(1, 31)]
            await stream.send(b"".join(asked))
            with trio.move_on_after(3):
                while True:
                    await client.call("status")
                    most = max(most, resident_bytes())
                    await trio.sleep(0.02)
            assert most - before < 200 << 20
    finally:
        await client.call("kill", "large")
