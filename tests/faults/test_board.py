"""The scoreboard's short form: each fault injected once in each of its ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import rows
from tests.faults.board import ROWS, Row

CASES = [
    pytest.param(row, number, id=f"{row.number}: {row.case(number)}")
    for row in ROWS.values()
    for number in range(row.short)
]


@pytest.mark.parametrize(("row", "number"), CASES)
def test_fault(row: Row, number: int, tmp_path: Path) -> None:
    assert rows.__doc__
    row.once(row.case(number), number, tmp_path)
