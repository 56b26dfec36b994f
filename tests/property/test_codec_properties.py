"""Any value that can be carried arrives equal and of the same type; no bytes break the decoder."""

from __future__ import annotations

import datetime as dt
import struct
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from creamas_sc.errors import DecodeError, EncodeError
from creamas_sc.wire.codec import Codec, Payload, Serializer
from creamas_sc.wire.columns import FEW
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame
from creamas_sc.wire.packing import LARGE_BYTES
from tests.support.properties import holds_for
from tests.support.values import Mood, Place, Route, shorten


class Picture:
    """Travels by its own pair of methods."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def _wire_state_(self) -> dict[str, Any]:
        return self.state

    @classmethod
    def _from_wire_state_(cls, state: dict[str, Any]) -> Picture:
        return cls(state)


class Point:
    """Travels by a serializer."""

    def __init__(self, x: Any) -> None:
        self.x = x


class Agent:
    """Travels by reference."""

    def __init__(self, addr: str, name: str) -> None:
        self.addr, self.name = addr, name


class Agents:
    """Knows agents by their address and the name of their class."""

    types = (Agent,)

    def describe(self, obj: Any) -> tuple[str, str]:
        return obj.addr, obj.name

    def resolve(self, address: str, class_name: str) -> Agent:
        return Agent(address, class_name)


CODEC = Codec([Serializer(Point, "point", lambda p: p.x, Point)], Agents())


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit and of the same types, all the way down."""
    kind = type(a)
    if type(b) is not kind:
        return False
    if kind in (list, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if kind is dict:
        return same(list(a.items()), list(b.items()))
    if kind in (set, frozenset):
        # Elements that are equal may still differ: True and 1, 0.0 and -0.0.
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if kind is float:
        return struct.pack("d", a) == struct.pack("d", b)
    if kind is complex:
        return same(a.real, b.real) and same(a.imag, b.imag)
    if kind is np.ndarray:
        return same_array(a, b)
    if isinstance(a, np.generic):
        return same_array(np.asarray(a), np.asarray(b))
    if kind in (Point, Picture, Agent):
        return same(vars(a), vars(b))
    if kind in (dt.datetime, dt.time):
        return bool(a == b) and same([a.fold, a.tzinfo], [b.fold, b.tzinfo])
    return bool(a == b)


def same_array(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if (a.dtype, a.dtype.char, a.shape) != (b.dtype, b.dtype.char, b.shape):
        return False
    if (a.flags.c_contiguous, a.flags.f_contiguous) != (b.flags.c_contiguous, b.flags.f_contiguous):
        return False
    return a.tobytes() == b.tobytes()


def short(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The same under a short name: hypothesis prints strategies, again and again when nested."""

    @st.composite
    def some(draw: st.DrawFn) -> Any:
        return draw(strategy)

    return some()


fixed_zones = st.builds(
    dt.timezone, st.timedeltas(dt.timedelta(hours=-23, minutes=-59), dt.timedelta(hours=23))
)
zones = st.none() | st.just(dt.UTC) | fixed_zones
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.characters(categories=["Cs"]),
    st.binary(max_size=8),
    st.complex_numbers(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([int, dt.datetime, Picture, shorten, Mood.GOOD, Mood.BAD]),
    st.builds(Place, st.integers(), st.lists(st.sampled_from(Mood), max_size=2).map(tuple)),
    st.builds(Route, st.lists(st.builds(Place, st.integers()), max_size=2).map(tuple)),
)
nested_hashable = st.recursive(
    short(plain),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
hashable = short(nested_hashable)
# Generic datetime units are deprecated in numpy.
dtypes = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(),
    npst.unsigned_integer_dtypes(),
    npst.floating_dtypes(),
    npst.complex_number_dtypes(),
    npst.datetime64_dtypes(),
    npst.timedelta64_dtypes(),
    npst.byte_string_dtypes(max_len=4),
    npst.unicode_string_dtypes(max_len=4),
)
arrays = st.builds(
    lambda array, order: np.asarray(array, order=order),
    npst.arrays(dtypes, npst.array_shapes(min_dims=0, min_side=0, max_side=3)),
    st.sampled_from("CF"),
)
scalars = dtypes.map(lambda dtype: dtype.newbyteorder("=")).flatmap(
    lambda dtype: npst.arrays(dtype, 1).map(lambda array: array[0])
)
leaves = st.one_of(
    hashable,
    arrays,
    scalars,
    # Large ones are made when drawn: hypothesis prints its strategies.
    st.integers(LARGE_BYTES - 1, LARGE_BYTES + 1).map(bytes),
    st.integers(LARGE_BYTES // 16 - 1, LARGE_BYTES // 16 + 1).map(
        lambda n: np.arange(2.0 * n).reshape(2, n)
    ),
)
values = st.recursive(
    short(leaves),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(Picture),
        inner.map(Point),
    ),
    max_leaves=12,
)
calls = st.tuples(
    st.lists(values, max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=3), values, max_size=2),
)
addresses = st.builds("tcp://h:{}/{}".format, st.integers(1, 2), st.integers(0, 3))
agents = st.builds(Agent, addresses, st.sampled_from(["m:A", "m:B"]))
# What the items of a long list are like: a strategy for one of them.
kinds = st.recursive(
    st.sampled_from([addresses, agents, short(leaves), st.just({"w": 0.5})]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda kinds: st.tuples(*kinds)),
        inner.map(lambda kind: st.lists(kind, max_size=3)),
        inner.map(lambda kind: st.lists(kind, max_size=3).map(tuple)),
        inner.map(lambda kind: st.dictionaries(addresses | hashable, kind, max_size=3)),
    ),
    max_leaves=5,
)
# A few of them, again and again: to draw that many takes too long.
few = kinds.flatmap(lambda kind: st.lists(kind, min_size=1, max_size=3))
many = few.map(lambda items: (items * FEW)[: FEW + len(items)])
maps = many.map(lambda items: dict(enumerate(items)))
holds = partial(holds_for, few=50, many=100)


def over_the_wire(payload: Payload) -> Payload:
    data = b"".join(map(bytes, encode_frame(Kind.REPLY, 1, b"", payload.body, payload.parts)))
    [frame] = FrameReader().receive_data(data)
    return Payload(frame.body, frame.parts)


@holds(values | calls)
def test_a_value_arrives_equal_and_of_the_same_type(value: Any) -> None:
    assert same(CODEC.decode(over_the_wire(CODEC.encode(value))), value)


@holds(many | maps)
def test_many_values_arrive_equal_and_of_the_same_types(value: Any) -> None:
    call = ((value, 1), {"k": value})
    for sent in (value, call):
        assert same(CODEC.decode(over_the_wire(CODEC.encode(sent))), sent)


@holds(values)
def test_the_receiver_owns_what_it_gets(value: Any) -> None:
    got = CODEC.decode(over_the_wire(CODEC.encode([value])))[0]
    if type(got) is np.ndarray:
        assert got.flags.writeable
        assert got.flags.aligned


@holds(
    values | many | maps,
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_bytes_are_refused_or_a_value(value: Any, damage: list[tuple[int, int]]) -> None:
    payload = CODEC.encode(value)
    body = bytearray(payload.body)
    for place, byte in damage:
        body[place % len(body)] = byte
    decode(Payload(bytes(body), [bytearray(part) for part in payload.parts]))


@holds(values | many | maps, st.integers(0), st.integers(0, 3))
def test_cut_bytes_are_refused(value: Any, end: int, parts: int) -> None:
    payload = CODEC.encode(value)
    assert not decode(Payload(payload.body[: end % len(payload.body)], payload.parts))
    decode(Payload(payload.body, payload.parts[:parts]))


@holds(st.binary(max_size=60), st.lists(st.binary(max_size=16), max_size=2))
@example(b"\xdd\x7f\xff\xff\xff", [])
def test_noise_is_refused_or_a_value(body: bytes, parts: list[bytes]) -> None:
    decode(Payload(body, parts))


def decode(payload: Payload) -> bool:
    """Whether it is a value; anything but `DecodeError` is a bug."""
    try:
        CODEC.decode(payload)
    except DecodeError:
        return False
    return True


@holds(values, st.integers(0, 5))
def test_a_refusal_names_the_culprit(value: Any, depth: int) -> None:
    wrapped: Any = [value, object()]
    for _ in range(depth):
        wrapped = (value, {"k": wrapped})
    with pytest.raises(EncodeError) as info:
        CODEC.encode(wrapped, root="result")
    assert info.value.type_name == "object"
    assert info.value.path == "result" + "[1]['k']" * depth + "[1]"
