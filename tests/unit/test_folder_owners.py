"""Whose files may be run: folders into which only this user writes."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace

import pytest

from creamas_sc.runtime.paths import others_may_write

# A user that is not in this user namespace, as far as this can be known where all are.
NOT_HERE = 2**32 - 1


@pytest.mark.parametrize(
    ("owner", "mode", "others"),
    [
        (None, 0o755, False),
        (0, 0o755, False),
        (None, 0o1777, True),
        (None, 0o775, False),
        (65_432, 0o700, True),
        (NOT_HERE, 0o755, False),
        (NOT_HERE, 0o777, True),
    ],
)
def test_whether_others_may_write_to_a_folder(
    monkeypatch: pytest.MonkeyPatch, owner: int | None, mode: int, others: bool
) -> None:
    uid, own = os.geteuid(), pwd.getpwuid(os.geteuid())
    group = SimpleNamespace(gr_name=own.pw_name, gr_mem=[own.pw_name])
    monkeypatch.setattr("grp.getgrgid", lambda number: group)
    status = SimpleNamespace(st_uid=uid if owner is None else owner, st_mode=mode, st_gid=1)
    monkeypatch.setattr("os.stat", lambda folder: status)
    assert others_may_write("folder") is others
    if mode & 0o020 and not others:
        group.gr_mem = [own.pw_name, "somebody"]
        assert others_may_write("folder")
        group.gr_mem, group.gr_name = [], "staff"
        assert others_may_write("folder")
        status.st_gid = 0
        assert not others_may_write("folder")
