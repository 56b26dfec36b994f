"""Many keys of one hash are refused, wherever they are; chance and repetition are not."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import msgpack
import numpy as np
import pytest

from creamas_sc.errors import DecodeError
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.collisions import MOST

# Hashes of numbers are their rests by this.
MODULUS = (1 << 61) - 1
COUNT = 3 * MOST


@pytest.mark.parametrize(
    "value",
    [
        {n * MODULUS: None for n in range(COUNT)},
        {n * MODULUS for n in range(COUNT)},
        [{"deep": {(n * MODULUS, 1): n}} for n in range(COUNT)],
        {Decimal(n * MODULUS): None for n in range(COUNT)},
        {(n % 16 * MODULUS, n // 16 * MODULUS): 0 for n in range(COUNT)},
        {np.complex128(complex(-sys.hash_info.imag * n, n)): 0 for n in range(COUNT)},
    ],
    ids=["ints", "set", "tuples in several", "decimals", "tuples in columns", "numpy"],
)
def test_keys_of_one_hash_are_refused(value: Any) -> None:
    payload = Codec().encode(value)
    with pytest.raises(DecodeError, match=f"more than {MOST} different values have the same hash"):
        Codec().decode(payload)


@pytest.mark.parametrize(
    "value",
    [
        [(0, 0)] * COUNT + [{"nested": (0, 0)}] * COUNT,
        {(n, n + 1): n for n in range(COUNT)},
        {n << 70: n for n in range(COUNT)},
        [([], n) for n in range(COUNT)],
    ],
    ids=["repeated", "tuples", "large ints", "not to be hashed"],
)
def test_other_values_arrive(value: Any) -> None:
    assert Codec().decode(Codec().encode(value)) == value


def test_each_message_is_counted_alone() -> None:
    codec = Codec()
    few = codec.encode(
        [{n * MODULUS: 0 for n in range(MOST // 2)}, [{"t": (n,)} for n in range(99)]]
    )
    for _ in range(10):
        codec.decode(few)


def test_the_hashes_of_times_of_msgpacks_own_are_not_to_be_calculated() -> None:
    body = msgpack.packb({msgpack.Timestamp(n, n): None for n in range(3)})
    assert set(map(type, Codec().decode(Payload(body)))) == {float}
