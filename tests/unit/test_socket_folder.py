"""The unix sockets of environments: found by port, and left by nobody."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
import trio

from creamas_sc.errors import StartError
from creamas_sc.rpc import socket_folder
from creamas_sc.rpc.socket_folder import SocketFolder, remove_abandoned_folders
from creamas_sc.rpc.socket_stream import ConnectedStream

PORT = 5555


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "creamas" / "environments"


@contextmanager
def listening(simulation: str = "one", port: int = PORT) -> Iterator[SocketFolder]:
    with closing(SocketFolder(simulation)) as folder:
        listener = folder.listen(port)
        yield folder
        listener.socket.close()


async def test_a_connection() -> None:
    with closing(SocketFolder("one")) as folder, trio.fail_after(10):
        listener = folder.listen(PORT)
        ours = ConnectedStream(folder.connect(PORT))
        theirs = ConnectedStream.adopt(await listener.accept())
        assert ours.local
        assert ours.stranger() is theirs.stranger() is None
        await ours.send(b"hello")
        assert await theirs.receive() == b"hello"
        await theirs.aclose()
        with pytest.raises(anyio.EndOfStream):
            await ours.receive()
        await ours.aclose()
        await listener.aclose()


async def test_another_user_is_told_by_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as folder, trio.fail_after(10):
        stream = ConnectedStream(folder.connect(PORT))
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        assert stream.stranger() == f"pid {os.getpid()} of user {uid}"
        await stream.aclose()


async def test_nothing_listens_at_other_ports_or_after_the_end(place: Path) -> None:
    with listening() as folder:
        with pytest.raises(FileNotFoundError):
            folder.connect(PORT + 1)
        assert (place / "one" / str(PORT)).is_socket()
    assert not list(place.iterdir())


async def test_only_the_user_can_enter(place: Path) -> None:
    with listening():
        for folder in (place / "one", place, place.parent):
            assert folder.stat().st_mode & 0o077 == 0


async def test_other_simulations_are_found_for_their_refusal() -> None:
    with listening("other"), closing(SocketFolder("one")) as folder:
        folder.connect(PORT).close()


async def test_what_a_killed_process_left_is_replaced(place: Path) -> None:
    with closing(SocketFolder("one")) as folder:
        folder.listen(PORT).socket.close()
        with pytest.raises(ConnectionRefusedError):
            folder.connect(PORT)
        listener = folder.listen(PORT)
        folder.connect(PORT).close()
        await listener.aclose()


async def test_a_socket_that_answers_is_not_replaced(place: Path) -> None:
    with listening("one"), closing(SocketFolder("one")) as folder:
        with pytest.raises(StartError, match=f"cannot listen at .*/{PORT}: another environment"):
            folder.listen(PORT)
        folder.connect(PORT).close()


async def test_who_leaves_removes_nobody_elses(place: Path) -> None:
    with closing(SocketFolder("one")) as first, closing(SocketFolder("one")) as second:
        old = first.listen(PORT)
        (place / "one" / str(PORT)).unlink()
        new = second.listen(PORT)
        first.close()
        second.connect(PORT).close()
        for listener in (old, new):
            await listener.aclose()
        first = SocketFolder("one")


def test_abandoned_folders_are_removed_and_others_stay(place: Path) -> None:
    with closing(SocketFolder("living")):
        (place / "dead").mkdir()
        (place / "dead" / "1").touch()
        (place / "a file").touch()
        remove_abandoned_folders()
        assert sorted(each.name for each in place.iterdir()) == ["a file", "living"]


def test_a_folder_that_is_just_being_removed_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, False

    def slowly(fd: int, how: int) -> None:
        nonlocal removed
        if not removed:
            (place / "one").rmdir()
            removed = True
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", slowly)
    with closing(SocketFolder("one")):
        assert removed
        assert (place / "one").is_dir()


async def test_paths_that_are_too_long_for_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with listening() as folder:
        folder.connect(PORT).close()
    assert not list((deep / "creamas" / "environments").iterdir())


async def test_a_full_queue_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_folder, "BACKLOG", 0)
    with listening() as folder:
        waiting = folder.connect(PORT)
        with pytest.raises(BlockingIOError):
            folder.connect(PORT)
        waiting.close()


def test_a_folder_that_cannot_be_put_back(place: Path) -> None:
    with closing(SocketFolder("one")) as folder:
        (place / "one").rmdir()
        (place / "one").touch()
        match = f"cannot make the folder {place / 'one'}: File exists"
        with pytest.raises(StartError, match=match):
            folder.listen(PORT)


async def test_a_folder_that_is_removed_as_it_is_made_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_open = os.open
    removed: list[str | Path] = []

    def late(path: str | Path, *args: int, **kwargs: int) -> int:
        if not removed and Path(path) == place / "one":
            removed.append(path)
            os.rmdir(path)
        return is_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", late)
    with listening():
        assert removed


async def test_a_folder_that_cannot_be_written_does_not_keep_its_user_from_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    descriptors = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch, listening():
        for function in ("unlink", "rmdir"):
            patch.setattr(os, function, refuse)
        patch.setattr(Path, "unlink", refuse)
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert f"/environments/one/{PORT}: Read-only file system" in caplog.text
    remove_abandoned_folders()


def test_what_a_link_in_place_of_the_folder_leads_to_stays(place: Path, tmp_path: Path) -> None:
    """Another user may make the runtime folder again, once something has removed it."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "file").touch()
    with closing(SocketFolder("one")):
        (place / "one").rmdir()
        (place / "one").symlink_to(results)
    assert (results / "file").exists()
