"""The file of the key that nodes and a supervisor share."""

from __future__ import annotations

from pathlib import Path

import pytest

from creamas_sc.errors import BadValue
from creamas_sc.supervisor_client.node_key import KEY_BYTES, make_key, parse_key, read_key


def test_a_key_is_made_once_and_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key"

    key = make_key(path)

    assert len(key) == KEY_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_key(path) == read_key(path) == key
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    make_key(path)
    path.chmod(0o640)

    with pytest.raises(BadValue, match="chmod 600"):
        read_key(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=f"{tmp_path}/none: No such file"):
        read_key(tmp_path / "none")


@pytest.mark.parametrize("text", [b"", b"ab", b"zz" * KEY_BYTES, b"\xff", b"a" * 66])
def test_what_is_no_key_is_refused(text: bytes) -> None:
    with pytest.raises(BadValue, match="descriptor 0 has no key of nodes"):
        parse_key(text, "descriptor 0")
