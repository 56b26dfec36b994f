"""Long lists of values alike travel as columns: which do, what arrives, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from creamas_sc.errors import DecodeError, EncodeError
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.columns import FEW, Columns
from creamas_sc.wire.packing import COLUMNS, ext

N = 2 * FEW
# Of a mebibyte each: more than a frame may hold.
MANY = 257


class Agent:
    """Travels by reference."""

    def __init__(self, addr: str) -> None:
        self.addr = addr


class Agents:
    """Turns agents into their addresses."""

    types = (Agent,)

    def describe(self, obj: Any) -> tuple[str, str]:
        return obj.addr, "m:Agent"

    def resolve(self, address: str, class_name: str) -> Any:
        return "proxy", address, class_name


def addresses(n: int = N) -> list[str]:
    return [f"tcp://host:1/{number}" for number in range(n)]


FOLDED = [
    [(i, str(i)) for i in range(N)],
    [()] * N,
    [(1,) * (i % 3) for i in range(N)],
    [((i,), {"k": i}) for i in range(N)],
    [((), {}) for i in range(N)],
    [[(i, i)] * (i % 3) for i in range(N)],
    [(address, {other: {} for other in addresses()}) for address in addresses()],
    {address: [("tcp://host:2/1", {"w": 0.5})] for address in addresses()},
    {i: (i, i) for i in range(N)},
]
PLAIN = [
    list(range(N)),
    [""] * N,
    [None, *[(1,)] * N],
    [[i] * 3 for i in range(N)],
    [{"w": 0.5}] * N,
    [(1, 2)] * (FEW - 1),
    addresses(),
    [[]] * N,
    {i: [i] for i in range(N)},
]


@pytest.mark.parametrize("value", FOLDED)
def test_what_msgpack_would_pack_one_by_one_is_folded(value: Any) -> None:
    columns = Columns()
    folded = columns.fold(value)
    assert folded is not None
    assert columns.unfold(folded) == value
    assert Codec().decode(Codec().encode(value)) == value


@pytest.mark.parametrize("value", PLAIN)
def test_what_msgpack_packs_as_well_is_not(value: Any) -> None:
    assert Columns().fold(value) is None or len(value) < FEW
    assert Codec().decode(Codec().encode(value)) == value


def test_a_tuple_in_columns_takes_a_few_bytes() -> None:
    assert len(Codec().encode([((), {})] * 1000).body) < 2100
    known: dict[str, Any] = {address: {"tcp://host:1/7": {}} for address in addresses(1000)}
    assert len(Codec().encode(known).body) < 22_000


def test_agents_go_as_columns_of_addresses_and_names() -> None:
    codec = Codec(references=Agents())
    made = [(Agent(address), address) for address in addresses()]
    payload = codec.encode(made)
    assert payload.body.count(b"m:Agent") == 1
    assert codec.decode(payload) == [(("proxy", a, "m:Agent"), a) for a in addresses()]
    with pytest.raises(DecodeError):
        Codec().decode(payload)


def test_strings_that_come_again_are_one_object() -> None:
    other = "tcp://host:1/77"
    [*owners] = Codec().decode(Codec().encode([(address, [other]) for address in addresses()]))
    assert len({id(known[0]) for _, known in owners}) == 1


def test_the_culprit_within_columns_is_named() -> None:
    value = [(i, object() if i == 17 else i) for i in range(N)]
    with pytest.raises(EncodeError) as info:
        Codec().encode(value, root="the reply of act")
    assert info.value.path == "the reply of act[17][1]"


@pytest.mark.parametrize("width", [FEW, 400])
def test_a_list_that_holds_itself_is_refused(width: int) -> None:
    value: list[Any] = []
    value.extend((value,) for _ in range(width))
    with pytest.raises(EncodeError, match="nested too deeply"):
        Codec().encode(value)


@pytest.mark.parametrize(
    ("items", "column"),
    [
        (0, []),
        (0, 0),
        (1, [0, 1]),
        (2, [0, [1, 2, 3]]),
        (1, [1, [0, [1, 2]], [0, [1]]]),
        (1, [2, [3], [0, [1, 2]]]),
        (1, [3, [1], [0, [1, 2]]]),
        (1, [2, [2**62], [0, []]]),
        (2, [2, [3, -1], [0, [1, 2]]]),
        (1, [2, ["2"], [0, [1, 2]]]),
        (1, [4, [1], [0, ["k"]], [0, []]]),
        (1, [4, [0], [0, ["k"]], [0, []]]),
        (1, [4, [0], [0, []], [0, ["v"]]]),
        (1, [4, [1], [0, [[]]], [0, [1]]]),
        (1, [5, ["a"], [1]]),
        (MANY, [5, ["a" * 2**20], [0] * MANY]),
        (0, [6, [0, ["a"]], [0, []]]),
        (1, [6, [0, ["a"]], [0, [1]]]),
        (0, [6]),
        (0, [7, [], []]),
    ],
)
def test_columns_that_do_not_fit_are_refused(items: int, column: Any) -> None:
    codec = Codec(references=Agents())
    assert codec.decode(packed(codec, [3, [2], [0, [1, 2]]])) == [1, 2]
    with pytest.raises(DecodeError):
        codec.decode(packed(codec, [3, [items], column]))


def test_a_long_text_that_comes_too_often_is_not_folded() -> None:
    text = "tcp://" + "a" * 2**20
    rows = [(text, i) for i in range(MANY)]
    column = Columns().fold(rows)
    assert column is not None
    with pytest.raises(DecodeError):  # as is, it would be
        Columns().unfold([3, [MANY], [1, [5, [text], [0] * MANY], [0, [*range(MANY)]]]])
    assert Columns().unfold(column) == rows


def packed(codec: Codec, columns: Any) -> Payload:
    encoder = codec._new_encoder()
    return Payload(encoder.pack([ext(COLUMNS, encoder.pack(columns)), None]))
