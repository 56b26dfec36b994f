"""What users may give, and that the error of the rest names the parameter."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from creamas_sc import Artifact, Environment, MultiEnvironment
from creamas_sc.core.randomness import check_seed
from creamas_sc.errors import BadValue, LoadError
from creamas_sc.foreign import shown
from creamas_sc.mp import MultiEnvManager
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.paths import check_name
from creamas_sc.runtime.validation import (
    MAX_INT,
    MAX_SECONDS,
    check_int,
    check_place,
    check_seconds,
    make_folder,
)
from creamas_sc.util import get_manager, run, sort_addrs

ADDRESS = "tcp://localhost:1/0"


def test_what_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seconds in (0, 1.5, math.inf, Fraction(1, 2), None):
        check_seconds(seconds)
    for folder in ("x/y", Path("x/y")):
        assert make_folder(folder) == str(tmp_path / "x" / "y")
        assert (tmp_path / "x" / "y").is_dir()
    assert make_folder(None) is None
    assert check_place(["localhost", 0]) == ("localhost", 0)
    check_int("age", 3)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "within", "a\0b"):
        with pytest.raises(BadValue, match=r"the folder .* cannot be created: .+"):
            make_folder(folder)
    with pytest.raises(BadValue, match="file cannot be created: it is a file"):
        make_folder(tmp_path / "file")


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of another user")
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777])
@pytest.mark.parametrize("kind", ["link", "folder"])
@pytest.mark.parametrize("owner", [0, 65534])
def test_a_folder_that_another_user_may_have_put_there(
    tmp_path: Path, mode: int, kind: str, owner: int
) -> None:
    (tmp_path / "elsewhere").mkdir()
    open_to_all = tmp_path / "results"
    open_to_all.mkdir()
    open_to_all.chmod(mode)
    there = open_to_all / "slave-0"
    if kind == "link":
        there.symlink_to(tmp_path / "elsewhere")
    else:
        there.mkdir()
    os.lchown(there, owner, owner)
    for folder in (there, open_to_all):
        if owner == 0 or mode == 0o755:
            assert make_folder(folder) == str(folder)
        else:
            text = f"{there} belongs to the user 65534, .*: save into a folder of your own"
            with pytest.raises(BadValue, match=text):
                make_folder(folder)
    os.chown(open_to_all, owner, owner)  # its owner may do in it what it wants
    assert make_folder(there) == str(there)


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of another user")
def test_a_folder_within_one_that_another_user_may_have_put_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    theirs = tmp_path / "results"
    (theirs / "run" / "slave-0").mkdir(parents=True)
    (tmp_path / "own").symlink_to(theirs / "run")
    for folder in (theirs, theirs / "run", theirs / "run" / "slave-0"):
        os.chown(folder, 65534, 65534)
    for folder in (theirs / "run", theirs / "other", tmp_path / "own"):
        with pytest.raises(BadValue, match=f"^{theirs} belongs to the user 65534"):
            make_folder(folder)


def test_numbers_of_numpy() -> None:
    np = pytest.importorskip("numpy")
    check_seconds(np.float32(1))
    check_int("age", np.int64(3))


@pytest.mark.parametrize("number", [2**64, 10**400, 10**5000], ids=["2**64", "400", "5000"])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_have_limits(number: int, sign: int) -> None:
    number *= sign
    for check in (
        lambda: check_int("age", number),
        lambda: check_seconds(number),
        lambda: check_seed(number if abs(number) >= 2**256 else -1),
        lambda: check_place(("localhost", number)),
        lambda: check_name(number, "simulation"),
        lambda: portable_name(number),
    ):
        with pytest.raises((ValueError, LoadError)) as caught:
            check()
        assert "sys.set_int_max_str_digits" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_the_largest_numbers() -> None:
    check_int("age", MAX_INT)
    check_seconds(MAX_SECONDS)
    check_seed(2**256 - 1)
    assert shown(10**5000) == "a value of type int, which cannot be printed"


Wrong = Callable[[Any], Any]

WRONG: dict[str, tuple[Wrong, type[Exception], str]] = {
    "connect(None)": (lambda m: run(m.connect(None)), TypeError, "addr must be a str"),
    "connect(5)": (lambda m: run(m.connect(5)), TypeError, "addr must be a str"),
    "connect, port": (
        lambda m: run(m.connect("tcp://localhost:99999/0")),
        ValueError,
        "addr: .* a port is at most 65535",
    ),
    "connect, timeout": (
        lambda m: run(m.connect(ADDRESS, timeout="x")),
        ValueError,
        "timeout must be a number of seconds",
    ),
    "connect, nan": (
        lambda m: run(m.connect(ADDRESS, timeout=math.nan)),
        ValueError,
        "timeout must be a number of seconds",
    ),
    "set_host_manager": (lambda m: run(m.set_host_manager(5)), TypeError, "addr must be a str"),
    "set_host_managers": (
        lambda m: run(m.set_host_managers(timeout=math.nan)),
        ValueError,
        "timeout must be a number of seconds",
    ),
    "stop_slaves": (lambda m: run(m.stop_slaves(timeout="x")), ValueError, "timeout must be"),
    "wait_slaves": (lambda m: run(m.wait_slaves(None)), ValueError, "timeout must be"),
    "add_artifact": (lambda m: m.add_artifact(5), TypeError, "artifact must be an Artifact"),
    "env.add_artifact": (lambda m: m.env.add_artifact(5), TypeError, "artifact must be"),
    "age": (lambda m: setattr(m, "age", "x"), TypeError, "age must be an int"),
    "age, large": (lambda m: setattr(m, "age", 10**5000), ValueError, "age must be at most"),
    "spawn_n": (
        lambda m: run(m.spawn_n("a:A", 10**9)),
        ValueError,
        "at least 0, at most 1,000,000",
    ),
    "trigger_all_within": (
        lambda m: run(m.trigger_all_within(10**400)),
        ValueError,
        "seconds must be at most",
    ),
    "env.age": (lambda m: setattr(m.env, "age", True), TypeError, "age must be an int"),
    "close": (lambda m: m.close(folder=5), TypeError, "folder must be a path or None"),
    "env.close": (lambda m: m.env.close(folder=5), TypeError, "folder must be a path or None"),
    "spawn_slaves": (
        lambda m: run(m.spawn_slaves([("localhost", "x")], Environment, MultiEnvManager)),
        ValueError,
        "slave_addrs: .* is not an address",
    ),
    "get_manager": (lambda m: get_manager(5), TypeError, "addr must be a str"),  # type: ignore[arg-type]
    "sort_addrs": (lambda m: sort_addrs([5]), TypeError, "addr must be a str"),  # type: ignore[list-item]
}


@pytest.fixture
def menv() -> Any:
    with MultiEnvironment(("localhost", 0), Environment, MultiEnvManager) as made:
        yield made


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_refused(menv: Any, wrong: str) -> None:
    call, error, text = WRONG[wrong]
    with pytest.raises(error, match=text):
        call(menv)
    menv.add_artifact(Artifact("me", 1))  # it was closed by none of them
