"""Columns of scalars: packed, joined, unpacked, and what becomes JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from creamas_sc.results.columns import Column, join, pack, plain, scalar, unpack


class Odd:
    def __repr__(self) -> str:
        raise ValueError("no repr")


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([1.5, -0.0, math.inf], "d"),
        ([1, -(2**63), 2**63 - 1], "q"),
        ([True, False], "?"),
        ([2**63], "json"),
        ([1, 1.5, True, None, "a\u2028\ud800"], "json"),
        (["x", "y"], "json"),
        ([], "json"),
    ],
)
def test_values_come_back_with_their_types(values: list[Any], form: str) -> None:
    column = pack(values)
    assert column.form == form
    found = list(unpack(column))
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_nan_comes_back() -> None:
    assert math.isnan(unpack(pack([math.nan]))[0])
    assert math.isnan(unpack(pack([math.nan, None]))[0])


def test_floats_and_ints_are_little_endian() -> None:
    assert pack([1]) == Column("q", b"\1" + bytes(7))
    assert pack([1.0]) == Column("d", bytes(6) + b"\xf0\x3f")


def test_what_is_no_scalar_is_not_packed() -> None:
    with pytest.raises(TypeError):
        pack([1.0, [2.0]])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("columns", "order", "expected"),
    [
        ([[1.0, 2.0], [3.0]], None, [1.0, 2.0, 3.0]),
        ([[1.0, 2.0], [3.0]], [2, 0, 1], [3.0, 1.0, 2.0]),
        ([[1.0], [3]], None, [1.0, 3]),
        ([["a"], ["b"]], [1, 0], ["b", "a"]),
        ([[True], [False]], None, [True, False]),
    ],
)
def test_join(columns: list[Any], order: list[int] | None, expected: list[Any]) -> None:
    found = list(unpack(join([pack(values) for values in columns], order)))
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(2.5), 2.5),
        (np.str_("a"), "a"),
        (True, True),
    ],
)
def test_numpy_scalars_become_plain(value: Any, expected: Any) -> None:
    assert scalar(value) == expected
    assert type(scalar(value)) is type(expected)


@pytest.mark.parametrize("value", [[1], np.zeros(2), object(), 1j])
def test_other_values_are_refused_by_type(value: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(value).__name__}$"):
        scalar(value)


def test_plain() -> None:
    assert plain({1: (np.float64(0.5), {"b", "a"}), "x": np.zeros((1, 2))}) == {
        "1": [0.5, ["a", "b"]],
        "x": [[0.0, 0.0]],
    }
    assert plain(1j) == "1j"
    assert isinstance(plain(Odd()), str)
