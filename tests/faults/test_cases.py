"""The first rounds of each row of the table of faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import cases
from tests.faults.registry import ROWS, Row

CASES = [
    pytest.param(
        row,
        number,
        id=f"{row.number}: {row.case(number)}",
        marks=pytest.mark.slow if number < row.quick else pytest.mark.long,
    )
    for row in ROWS.values()
    for number in range(row.short)
]


@pytest.mark.parametrize(("row", "number"), CASES)
def test_fault(row: Row, number: int, tmp_path: Path) -> None:
    assert cases.__doc__
    row.once(row.case(number), number, tmp_path)
