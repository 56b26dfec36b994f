"""Bytes that violate the protocol: mutated frames, nesting and length bombs."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgpack

from creamas_sc.wire.codec import Codec
from creamas_sc.wire.frames import Frame, FrameReader, Kind, encode_frame

__all__ = ["FOUR_GIB", "Garbage", "bombs", "mutations", "request"]

CODEC = Codec()
HEADER = struct.Struct("!IBxHII")
FOUR_GIB = HEADER.pack(2**32 - 1, Kind.REQUEST, 1, 1, 0)
MOST = 2**32 - 1
DEEPEST = 100_000
# Of extensions within each other; past a hundred they are refused.
LEVELS = 300
PARTS = 1024
# Codes of tuples, sets, objects, columns ..., and some unknown ones.
CODES = 24


class Garbage(NamedTuple):
    """Generates two kinds of bytes, new ones with each call.

    Attributes:
        within: A valid frame with invalid content: the connection stays open.
        breaking: Not necessarily a frame: the connection may end.
    """

    within: Callable[[], bytes]
    breaking: Callable[[], bytes]


def request(target: Any, method: str, *args: Any, call_id: int = 1) -> bytes:
    """A call's frame."""
    payload = CODEC.encode((args, {}))
    meta = msgpack.packb((target, method, None))
    return b"".join(encode_frame(Kind.REQUEST, call_id, meta, payload.body, payload.parts))


# ---- mutations


def mutations(chance: random.Random, sound: Sequence[bytes]) -> Garbage:
    """Some of those frames, and of each other kind, with bytes changed, put in or left out."""
    others = [
        b"".join(encode_frame(kind, 1, b"x" * 9, b"y" * 9, [b"z" * 9]))
        for kind in Kind
        if kind not in (Kind.HELLO, Kind.REQUEST)
    ]
    frames = [frame for data in (*sound, *others) for frame in FrameReader().receive_data(data)]
    anything = [*sound, *others, b"".join(encode_frame(Kind.HELLO, 0, b"x" * 9, b"y" * 9))]

    def within() -> bytes:
        kind, call_id, meta, body, parts = chance.choice(frames)
        if kind is not Kind.REQUEST and kind is not Kind.EVENT:
            meta = _changed(chance, meta)
        changed = [_changed(chance, bytes(part)) for part in parts]
        return _whole(Frame(kind, call_id, meta, _changed(chance, body), changed))

    return Garbage(within, lambda: _changed(chance, chance.choice(anything)))


def _changed(chance: random.Random, data: bytes) -> bytes:
    """``data`` with one to three changes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[place:place] = chance.randbytes(chance.randint(1, 4))
            case 1:
                del changed[place : place + chance.randint(1, 4)]
            case _:
                changed[place : place + 1] = chance.randbytes(1)
    return bytes(changed)


def _whole(frame: Frame) -> bytes:
    return b"".join(encode_frame(*frame))


# ---- bombs


def bombs(chance: random.Random, calls: Sequence[tuple[Any, str]]) -> Garbage:
    """Calls whose arguments, and frames whose heads, are deeper or longer than can be."""

    def meta() -> bytes:
        target, method = chance.choice(calls)
        packed: bytes = msgpack.packb((target, method, None))
        return packed

    def within() -> bytes:
        bomb = chance.choice((_deep, _nested, _long, _columns))(chance)
        body = chance.choice((bomb, b"\x92" + bomb + b"\x80", b"\x93" + bomb + bomb + b"\x80"))
        return _whole(Frame(Kind.REQUEST, 1, meta(), body))

    def breaking() -> bytes:
        return chance.choice((_deep_meta, _head))(chance)

    return Garbage(within, breaking)


def _deep(chance: random.Random) -> bytes:
    """Lists or dicts within each other, closed or not."""
    depth = chance.randint(1, DEEPEST)
    return chance.choice((b"\x91", b"\x81\xc0", b"\x81")) * depth + chance.choice((b"", b"\xc0"))


def _nested(chance: random.Random) -> bytes:
    """Extensions within each other, with lists in between."""
    code, lists = chance.randrange(CODES), chance.choice((0, 1, 30, 1000))
    value = b"\x90"
    for _ in range(chance.randint(1, LEVELS)):
        inner = b"\x91" * lists + value
        value = _extension(chance.choice((code, chance.randrange(CODES))), inner)
    return value


def _long(chance: random.Random) -> bytes:
    """A length, of any type, of what does not come."""
    head = bytes([chance.choice((0xDD, 0xDF, 0xDB, 0xC6, 0xC9))])
    return head + struct.pack("!I", chance.choice((MOST, 2**31, 2**24))) + chance.randbytes(9)


def _columns(chance: random.Random) -> bytes:
    """Columns that announce items that do not follow, or the same item many times."""
    many = chance.choice((2**62, 2**32, 10**6, -1))
    text = ["x" * chance.choice((1, 10**4, 10**5))]
    column = chance.choice(
        (
            [0, many],
            [1],
            [1, *[[0, []]] * 1000],
            [2, [many, -many], [0, []]],
            [3, [0] * 10_000, [0, []]],
            [4, [many], [0, []], [0, []]],
            [4, [3], [0, [[], [], []]], [0, [1, 2, 3]]],
            [5, text, [many]],
            [5, text, [0] * 100_000],
            [6, [5, text, [0] * 1000], [0, ["x"] * 1000]],
        )
    )
    return _extension(20, msgpack.packb(column))


def _extension(code: int, data: bytes) -> bytes:
    return struct.pack("!BIb", 0xC9, len(data), code) + data


def _deep_meta(chance: random.Random) -> bytes:
    meta = chance.choice((b"\x91" * (2**16 - 1), _nested(chance), _long(chance)))
    return _whole(Frame(Kind.REQUEST, 1, meta[: 2**16 - 1], b"\x80"))


def _head(chance: random.Random) -> bytes:
    """A frame's head, or a head and the lengths of its parts, and then no more."""
    many = chance.choice((MOST, 2**31, 2**28, 2**26 - 1, 2**16))
    parts = chance.choice((0, 1, PARTS, PARTS + 1, MOST))
    head = HEADER.pack(many, chance.choice(tuple(Kind)), chance.choice((0, 2**16 - 1)), 1, parts)
    sizes = struct.pack("!I", chance.choice((0, 1, many, many // PARTS))) * min(parts, PARTS)
    return head + sizes + chance.randbytes(chance.choice((0, 100, 10_000)))
