"""A daemon keeps its socket, lock and key in place, and touches no other daemon's."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from creamas_sc.errors import ConnectionLost, StartError, UnknownSimulation
from creamas_sc.rpc import accepting
from creamas_sc.runtime.paths import daemon_socket
from supervisor.daemon.listener import Listener
from supervisor.daemon.lock import is_held, listens, locked, take
from supervisor.daemon.managed_simulation import ManagedSimulation
from supervisor.daemon.place import DaemonPlace
from supervisor.daemon.records import recorded
from tests.support.daemon_clients import connected

BOUND_SECONDS = 10
NAME = "placed"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accepting, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def nobody(_: object) -> ManagedSimulation:
    raise UnknownSimulation("there is none")


async def hello() -> str:
    return "hello"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Listener, trio.Event]]:
    """A listener as in a daemon, and the event of another one in its place."""
    replaced = trio.Event()
    with trio.fail_after(BOUND_SECONDS), locked(daemon_socket(NAME)):
        place = DaemonPlace(daemon_socket(NAME), 7)
        listener = Listener(place, {"hello": hello}, nobody, replaced.set)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            yield listener, replaced
            listener.shut()
            await listener.aclose()
        if place._lock_fd is not None:
            os.close(place._lock_fd)


async def until_served(path: Path) -> None:
    while True:
        try:
            async with connected(path) as client:
                assert await client.call("hello") == "hello"
                return
        except OSError:
            await trio.sleep(0.01)


REMOVED: dict[str, Callable[[Path], object]] = {
    "socket": Path.unlink,
    "lock": lambda path: path.with_suffix(".lock").unlink(),
    "key": lambda path: (path.parent / "key").unlink(),
    "folder": lambda path: shutil.rmtree(path.parent),
    "parent": lambda path: shutil.rmtree(path.parents[1]),
}


@pytest.mark.parametrize("what", REMOVED)
async def test_what_is_removed_is_put_back(what: str) -> None:
    path = daemon_socket(NAME)
    async with listening():
        await until_served(path)
        for _ in range(2):
            REMOVED[what](path)
            while what != "key" and not is_held(path):  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
            await until_served(path)
    assert not path.exists()


async def test_a_lock_that_was_put_back_keeps_others_out() -> None:
    path = daemon_socket(NAME)
    async with listening():
        path.with_suffix(".lock").unlink()
        while not is_held(path):  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)
        await until_served(path)
        with pytest.raises(StartError, match=r"daemon 'placed' runs already \(pid 7\)"):
            with locked(path):
                pytest.fail("locked")


async def test_a_start_that_is_refused_meanwhile_replaces_nobody() -> None:
    path = daemon_socket(NAME)
    async with listening() as (_, replaced):
        shutil.rmtree(path.parent)
        path.parent.mkdir(mode=0o700)
        fd = take(path)
        assert fd is not None
        await trio.sleep(0.05)  # longer than it takes to notice
        os.close(fd)
        await until_served(path)
        assert not replaced.is_set()


async def test_one_whose_place_is_taken_ends_and_leaves_the_other_alone() -> None:
    path = daemon_socket(NAME)
    with ExitStack() as others:
        async with listening() as (_, replaced):
            shutil.rmtree(path.parent)
            others.enter_context(locked(daemon_socket(NAME)))
            other = others.enter_context(DaemonPlace(path, 8).listen().socket)
            await replaced.wait()
        assert path.exists()
        assert is_held(path)
        assert other.fileno() >= 0


def nothing_can_be_removed(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


async def test_a_shut_that_cannot_remove_the_socket_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = daemon_socket(NAME)
    async with listening() as (listener, _):
        await until_served(path)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", nothing_can_be_removed)
            for _ in range(2):
                listener.shut()
        assert not listens(path)
    assert caplog.text.count(f"cannot remove {path}: Read-only file system") == 1
    assert not path.exists()


def test_a_daemon_that_cannot_remove_its_files_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = daemon_socket(NAME)
    with monkeypatch.context() as patch:
        with locked(path), recorded(tmp_path, NAME), socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.fspath(path))
            patch.setattr(Path, "unlink", nothing_can_be_removed)
    assert not is_held(path)
    with locked(path):  # by the next one
        assert path.exists()
    assert not path.exists()


# ---- one client's fault is its own


async def test_an_odd_path_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", os.fsdecode(bytes(tmp_path) + b"/\xff"))
    async with listening():
        await until_served(daemon_socket(NAME))


async def test_an_unforeseen_error_ends_one_connection_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = daemon_socket(NAME)
    async with listening() as (listener, _), connected(path) as client:
        assert await client.call("hello") == "hello"
        monkeypatch.setattr(listener, "_find", lambda _: 1 / 0)
        async with connected(path) as other:
            with pytest.raises(ConnectionLost):
                await other.call("attach", "one", {})
        assert await client.call("hello") == "hello"
        await until_served(path)
    assert "ZeroDivisionError" in caplog.text


async def test_refusals_of_one_kind_are_logged_once_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = daemon_socket(NAME)
    async with listening():
        for _ in range(20):
            async with await trio.open_unix_socket(path) as stream:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    await stream.receive_some(1)
    refused = [line for line in caplog.messages if "refused" in line]
    assert len(refused) == 2
    assert refused[0].startswith(f"refused a connection of pid {os.getpid()}: ")
    assert refused[1].startswith("refused 19 more connections; the last: ")
