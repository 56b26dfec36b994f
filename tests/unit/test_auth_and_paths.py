"""Who belongs together: the user's private folder, and the key in it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.errors import BadValue, CreamasError
from creamas_sc.rpc import auth
from creamas_sc.rpc.auth import KEY_BYTES, Membership, client_identity, user_membership
from creamas_sc.runtime import paths
from creamas_sc.runtime.paths import (
    check_name,
    daemon_name,
    daemon_socket,
    is_private,
    runtime_folder,
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_folder_is_private(base: Path) -> None:
    before = os.umask(0)
    try:
        assert runtime_folder() == base / "creamas"
    finally:
        os.umask(before)
    assert mode(base / "creamas") == 0o700
    assert runtime_folder() == base / "creamas"


def test_without_a_runtime_folder_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert runtime_folder() == tmp_path / f"creamas-{os.getuid()}"
    assert mode(runtime_folder()) == 0o700


def test_a_full_disk_changes_no_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else no command would reach a daemon any more."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("io.open", fail)
    monkeypatch.setattr("os.write", fail)
    monkeypatch.setattr("os.open", fail)
    assert paths.runtime_path() == tmp_path / f"creamas-{os.getuid()}"


def test_a_folder_for_temporary_files_that_is_none_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setenv("TMP", str(tmp_path))
    monkeypatch.delenv("TEMP", raising=False)
    assert paths.runtime_path() == tmp_path / f"creamas-{os.getuid()}"


def test_a_relative_runtime_folder_is_no_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert runtime_folder() == tmp_path / f"creamas-{os.getuid()}"
    assert not (tmp_path / "run").exists()


def test_what_is_missing_above_the_folder_is_private_too(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "run" / "user"))
    before = os.umask(0)
    try:
        folder = runtime_folder()
    finally:
        os.umask(before)
    assert folder == base / "run" / "user" / "creamas"
    assert [mode(path) for path in (folder, *folder.parents[:3])] == [0o700, 0o700, 0o700, 0o755]


@pytest.mark.parametrize("opened", [0o701, 0o710, 0o777])
def test_a_folder_that_others_may_enter_is_refused(base: Path, opened: int) -> None:
    runtime_folder().chmod(opened)
    with pytest.raises(CreamasError, match=f"mode 0700: type 'chmod 700 {base / 'creamas'}'$"):
        runtime_folder()


def test_a_folder_of_somebody_else_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_folder()
    somebody = os.getuid() + 1
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    told = rf"folder that you own, .*: it belongs to the user {owner}; .* 'export XDG_RUNTIME_DIR="
    with pytest.raises(CreamasError, match=told):
        user_membership()


def test_a_folder_that_is_removed_as_it_is_made(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another user, who has made it and removes it."""
    monkeypatch.setattr(paths, "make_private", lambda folder: None)
    with pytest.raises(CreamasError, match=f"the folder {base / 'creamas'} cannot be created: No "):
        runtime_folder()


@pytest.fixture
def of_others(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """What is in this set belongs to another user."""
    theirs: set[Path] = set()
    lstat = Path.lstat

    def look(path: Path) -> Any:
        status = lstat(path)
        if path not in theirs:
            return status
        return os.stat_result((*status[:4], os.getuid() + 1, *status[5:]))

    monkeypatch.setattr(Path, "lstat", look)
    return theirs


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize(
    ("mode", "theirs", "refused"),
    [
        (0o755, False, False),
        (0o777, False, True),
        (0o1777, False, False),
        (0o700, True, True),
        (0o1777, True, True),
    ],
)
def test_a_folder_that_others_can_replace_is_refused(
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_others: set[Path],
    mode: int,
    theirs: bool,
    refused: bool,
    link: bool,
) -> None:
    """They have made a folder above it first, say, or may write there."""
    shared = base / "shared"
    (shared / "run").mkdir(parents=True)
    shared.chmod(mode)
    if theirs:
        of_others.add(shared)
    place = base / "link" if link else shared / "run"
    if link:
        place.symlink_to(shared / "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    if not refused:
        assert runtime_folder() == place / "creamas"
        assert is_private(place / "creamas")
        return
    with pytest.raises(CreamasError, match=f"since they may write to {shared}: set XDG_RUNTIME_D"):
        runtime_folder()
    assert not is_private(place / "creamas")


def test_a_link_of_another_user_leads_to_no_runtime_folder(
    base: Path, monkeypatch: pytest.MonkeyPatch, of_others: set[Path]
) -> None:
    (base / "run").mkdir()
    (base / "link").symlink_to(base / "run")
    of_others.add(base / "link")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "link"))
    with pytest.raises(CreamasError, match=f"since they may write to {base / 'link'}: "):
        runtime_folder()


def test_who_owns_what_is_above_the_home_is_not_asked(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.chmod(0o777)
    (base / "home").mkdir()
    monkeypatch.setenv("HOME", str(base / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "home" / "run"))
    assert runtime_folder() == base / "home" / "run" / "creamas"


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_is_no_folder_is_refused(base: Path, kind: str) -> None:
    place = base / "creamas"
    if kind == "file":
        place.touch(0o700)
    else:
        if kind == "link":
            (base / "elsewhere").mkdir(0o700)
        place.symlink_to(base / "elsewhere")
    with pytest.raises(CreamasError, match=r"folder that you own, .*: it is none; remove it"):
        runtime_folder()


def test_the_key_is_made_once_and_private(base: Path) -> None:
    member = user_membership()
    assert (member.simulation, len(member.key)) == ("user", KEY_BYTES)
    assert user_membership() == member
    assert mode(base / "creamas" / "key") == 0o600
    assert os.listdir(base / "creamas") == ["key"]


def test_of_two_that_make_the_key_at_once_one_wins(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found that there is none before either makes one."""
    both, make = threading.Barrier(8), auth._make_key

    def make_together(path: Path) -> bytes:
        both.wait(10)
        return make(path)

    monkeypatch.setattr(auth, "_make_key", make_together)
    keys: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: keys.append(user_membership().key)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert os.listdir(base / "creamas") == ["key"]


@pytest.mark.parametrize("size", [0, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_file_that_is_no_key_is_refused(base: Path, size: int) -> None:
    (runtime_folder() / "key").write_bytes(bytes(size))
    with pytest.raises(CreamasError, match="is not a key"):
        user_membership()


def test_a_simulation_has_an_id_and_a_key_of_its_own() -> None:
    one, other = Membership.new(), Membership.new()
    assert one.simulation != other.simulation
    assert one.key != other.key
    assert one.role == other.role == "master"
    assert repr(one.key) not in repr(one)


# ---- daemons


@pytest.mark.parametrize("name", ["a", "0", "my.daemon_2-x"])
def test_names(name: str, base: Path) -> None:
    assert check_name(name, "simulation") == name
    assert check_name(64 * name[0], "simulation")
    assert daemon_name(name) == name
    assert daemon_socket(name) == base / "creamas" / f"{name}.sock"


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "_x", "a/b", "a b", "a\n", "ä", "a" * 65, 7])
def test_no_names(name: object, base: Path) -> None:
    with pytest.raises(BadValue, match="is not a name for a simulation: use up to 64 letters"):
        check_name(name, "simulation")
    with pytest.raises(BadValue, match="is not a name for a daemon"):
        daemon_socket(name)  # type: ignore[arg-type]


def test_what_is_no_name_is_shown_in_part() -> None:
    with pytest.raises(BadValue) as caught:
        check_name("x" * 100_000, "simulation")
    assert len(str(caught.value)) < 300


def test_the_daemon_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREAMAS_DAEMON", raising=False)
    assert daemon_name() == "default"
    monkeypatch.setenv("CREAMAS_DAEMON", "other")
    assert daemon_name() == "other"
    assert daemon_name("third") == "third"
    monkeypatch.setenv("CREAMAS_DAEMON", "")
    assert daemon_name() == "default"
    monkeypatch.setenv("CREAMAS_DAEMON", "no/name")
    with pytest.raises(BadValue, match="'no/name'"):
        daemon_name()


def test_a_socket_in_too_deep_a_folder(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = base / ("x" * 90)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(CreamasError, match=r"longer than the 107 bytes .* XDG_RUNTIME_DIR"):
        daemon_socket("default")


def test_a_folder_that_cannot_be_made(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "file"))
    with pytest.raises(CreamasError, match=r"cannot be created: .*; set XDG_RUNTIME_DIR") as caught:
        runtime_folder()
    assert isinstance(caught.value.__cause__, OSError)


def test_what_a_client_shows(base: Path) -> None:
    shown = client_identity()
    assert (shown.simulation, shown.role, shown.pid) == (
        "creamas-supervisor",
        "client",
        os.getpid(),
    )
    assert shown.key == user_membership().key
