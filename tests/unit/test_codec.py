"""What the codec carries, what it refuses and how it says so."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import gc
import math
import re
import sys
import threading
import weakref
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgpack
import numpy as np
import pytest

from creamas_sc.errors import DecodeError, EncodeError, from_wire
from creamas_sc.wire.codec import Codec, Payload, Serializer
from creamas_sc.wire.frames import MAX_PARTS
from creamas_sc.wire.numpy_values import LARGE_ARRAY_BYTES
from creamas_sc.wire.packing import LARGE_BYTES, MAX_DEPTH, Undecodable
from tests.support.programs import run_code

LARGE = b"x" * LARGE_BYTES
T = TypeVar("T")


class Point:
    """Travels by a serializer."""

    def __init__(self, x: Any, y: Any = 0) -> None:
        self.x, self.y = x, y


class Picture:
    """Travels by its own pair of methods."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def _wire_state_(self) -> dict[str, Any]:
        return self.state

    @classmethod
    def _from_wire_state_(cls, state: dict[str, Any]) -> Picture:
        return cls(**state)


class Framed(Picture):
    """A subclass, which travels without more methods."""


class Shy(Picture):
    """Does not want to travel."""

    def _wire_state_(self) -> dict[str, Any]:
        raise KeyError("not today")


class Odd(Picture):
    """Has no state to speak of."""

    def _wire_state_(self) -> Any:
        return [1]


class Agent:
    """Travels by reference."""

    def __init__(self, addr: str) -> None:
        self.addr = addr


class Addresses:
    """References that turn agents into their addresses."""

    types = (Agent,)

    def describe(self, obj: Any) -> tuple[str, str]:
        return obj.addr, "test:Agent"

    def resolve(self, address: str, class_name: str) -> Any:
        return "proxy", address, class_name


class Level(enum.IntEnum):
    LOW = 1


Pair = collections.namedtuple("Pair", "a b")


class Mood(enum.Enum):
    GOOD = ("any", "value")
    FINE = GOOD
    BAD = 3.5


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Mode(enum.StrEnum):
    FAST = "fast"


class Place(NamedTuple):
    name: str
    at: tuple[int, int] = (0, 0)


class LongPlace(Place):
    """May have attributes besides its fields."""


@dataclasses.dataclass
class Vector(Generic[T]):
    x: float
    y: T
    norm: float = dataclasses.field(init=False, default=-1)
    made: ClassVar[int] = 0

    def __post_init__(self) -> None:
        Vector.made += 1
        self.norm = self.x + 1
        self.twice = self.x * 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    ends: tuple[Any, ...] = ()
    mood: Mood = Mood.GOOD


@dataclasses.dataclass
class Seeded:
    seed: dataclasses.InitVar[int]
    number: int = 0

    def __post_init__(self, seed: int) -> None:
        self.number = seed


@dataclasses.dataclass
class Picky:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x must not be negative")


@dataclasses.dataclass
class Verbose:
    x: int

    def __post_init__(self) -> None:
        raise ValueError("long " * 10_000)


@dataclasses.dataclass(eq=False)
class Owner:
    x: int


@dataclasses.dataclass(eq=False)
class Unhashable:
    x: int

    def __hash__(self) -> int:
        raise AttributeError("not yet")


@dataclasses.dataclass(eq=False)
class Incomparable:
    x: int

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


class Longer(Vector[int]):
    """No dataclass itself, so its objects may be more than their fields."""


@dataclasses.dataclass
class Words(dict[str, int]):
    """A dataclass with contents besides its fields."""

    language: str = "en"


def function() -> int:
    raise AssertionError("it is not called")


async def coroutine_function() -> None:
    pass


function_by_another_name = functools.wraps(function)(lambda: 1)

POINTS = Serializer(Point, "point", lambda p: (p.x, p.y), lambda data: Point(*data))


def arrived(payload: Payload) -> Payload:
    """The payload as the other end gets it."""
    return Payload(bytes(payload.body), [bytearray(part) for part in payload.parts])


def carried(value: Any, codec: Codec | None = None) -> Any:
    codec = codec or Codec()
    return codec.decode(arrived(codec.encode(value)))


def refused(value: Any, codec: Codec | None = None, **kwargs: Any) -> EncodeError:
    codec = codec or Codec()
    with pytest.raises(EncodeError) as info:
        codec.encode(value, **kwargs)
    # Nothing is left of the failed value: the same codec goes on.
    assert carried(((1, (2,)), {"k": LARGE}), codec) == ((1, (2,)), {"k": LARGE})
    return info.value


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = wrap(value)
    return value


def test_msgpack_is_the_compiled_one() -> None:
    assert msgpack.Packer.__module__ != "msgpack.fallback"  # a tenth of the speed


def test_numpy_and_zoneinfo_are_not_imported_unless_needed() -> None:
    code = (
        "import sys\n"
        "from creamas_sc.wire.codec import Codec\n"
        "codec = Codec()\n"
        "assert codec.decode(codec.encode(((1, (2,)), {}))) == ((1, (2,)), {})\n"
        "assert not {'numpy', 'zoneinfo', 'trio', 'anyio'} & set(sys.modules)\n"
    )
    done = run_code(code)
    assert done.returncode == 0, done.stderr


# ---- what is carried

PLAIN: list[Any] = [
    None, True, False, 0, 1, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1,
    2**2000, -(2**2000), 0.0, -0.0, 1.5, 5e-324, math.inf, -math.inf, math.nan,
    "", "text", "ä\0€😀", "\ud800 alone", b"", b"\0\xff", LARGE,
    1j, complex(math.nan, -0.0), complex(-0.0, math.inf),
]  # fmt: skip
CONTAINERS: list[Any] = [
    [], [1], [None], [{}], [[]], [[], None], [True], [1, True],
    (), (1,), (None,), ((),), ((), {}), ((1,), {}), ({}, ()), ((), {}, None), ([], {}),
    ((1.5, "abc"), {"k": [1, 2, 3]}), [((), {})] * 3, ([(1, [2, (3,)])],),
    {}, {"z": 1, "a": 2, "m": 3}, {1: "i", (1, (2,)): "t", None: "n", b"b": "b", 1.5: "f"},
    {frozenset({1}): 1, True: 2, 2**70: 3, 1j: 4}, {(): ()},
    set(), {1, 2}, {(1, 2)}, frozenset(), frozenset({frozenset({1})}), [{1}, frozenset({1})],
    [LARGE, LARGE], (LARGE, 1), {"k": LARGE}, ((LARGE,), {"k": LARGE}), [[LARGE]],
    list(range(5000)), tuple(range(5000)), "x" * 5000, (("x" * 5000,),),
]  # fmt: skip
STANDARD: list[Any] = [
    dt.datetime(2024, 2, 29, 23, 59, 58, 999999), dt.datetime.min, dt.datetime.max,
    dt.datetime(2024, 1, 1, fold=1), dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2), "here")),
    dt.date.min, dt.date.max, dt.time(1, 2, 3, 4, fold=1), dt.time(5, tzinfo=dt.UTC),
    dt.timedelta.min, dt.timedelta.max, dt.timedelta(-1, 2, 3), dt.UTC,
    Decimal("-0.00"), Decimal("1E+999999"), Decimal("NaN"), Decimal("sNaN12"), Decimal("-Infinity"),
    UUID(int=2**128 - 1), int, dt.datetime, Point, Level, Codec,
]  # fmt: skip


@pytest.mark.parametrize("value", [*PLAIN, *CONTAINERS, *STANDARD], ids=lambda v: repr(v)[:40])
def test_an_equal_value_of_the_same_type_arrives(value: Any) -> None:
    got = carried(value)
    assert type(got) is type(value)
    assert repr(got) == repr(value)  # Tells 1 from True and 1.0, and what is in containers.
    assert repr(carried(((value,), {"k": [value]}))) == repr(((value,), {"k": [value]}))


def test_utc_and_fold_stay_what_they_are() -> None:
    assert carried(dt.UTC) is dt.UTC
    assert carried([dt.datetime(2024, 1, 1, fold=1)])[0].fold == 1
    assert carried([dt.time(1, fold=1)])[0].fold == 1


@pytest.mark.skipif(not zoneinfo.available_timezones(), reason="no time zone data here")
def test_time_zones_travel_by_key() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Helsinki")
    value = dt.datetime(2024, 10, 27, 3, 30, tzinfo=zone, fold=1)
    got = carried(value)
    assert got.tzinfo is zone
    assert got.utcoffset() == value.utcoffset()


def test_objects_by_serializer() -> None:
    codec = Codec([POINTS])
    got = carried([Point(1, (2, {3}))], codec)[0]
    assert type(got) is Point
    assert (got.x, got.y) == (1, (2, {3}))


def test_a_serializer_may_use_the_codec_itself() -> None:
    codec = Codec()

    def encode(point: Point) -> bytes:
        return codec.encode((point.x, (point.y,))).body

    outer = Codec([Serializer(Point, "p", encode, lambda b: Point(*codec.decode(Payload(b))))])
    got = carried((Point((1,), [2]), (Point(3),)), outer)
    assert (got[0].x, got[0].y, got[1][0].x) == ((1,), ([2],), 3)


def test_objects_by_their_own_methods() -> None:
    got = carried(((Framed(a=(1,), picture=Picture(b={2})),), {}))[0][0]
    assert type(got) is Framed
    assert got.state["a"] == (1,)
    assert type(got.state["picture"]) is Picture
    assert got.state["picture"].state == {"b": {2}}


NAMED: list[Any] = [
    Mood.GOOD, Mood.FINE, Mood.BAD, Level.LOW, Mode.FAST, Right.READ, Right.READ | Right.WRITE,
    Right(0), Pair(1, (2, [3])), Place("here"), LongPlace("there", (1, 2)), Vector(1, "y"),
    Vector(1, Line(ends=(Place("a"), {Place("b")}))), Line(mood=Mood.BAD), Seeded(3),
    {Line(ends=(1,)): Mode.FAST, Mode.FAST: Pair(1, 2), Level.LOW: [Vector(2, LARGE)] * 20},
    function, coroutine_function, Picture.__init__,
]  # fmt: skip


@pytest.mark.parametrize("value", NAMED, ids=lambda v: getattr(v, "__name__", repr(v)[:40]))
def test_by_name_and_without_registration(value: Any) -> None:
    got = carried(value)
    assert type(got) is type(value)
    assert repr(got) == repr(value)
    assert got == value
    if not isinstance(value, dict):
        assert carried({"k": [(value,)]}) == {"k": [(value,)]}
    if isinstance(value, enum.Enum):
        assert got is value


def test_a_dataclass_arrives_as_it_was_left() -> None:
    vector = Vector(1, 2)
    vector.norm, vector.twice = 17, 18
    made = Vector.made
    got = carried(vector)
    assert (got.norm, got.twice) == (17, 2), "a field, and what __post_init__ makes of the fields"
    assert Vector.made == made + 1


def test_what_was_decoded_is_not_kept() -> None:
    codec = Codec()
    value = [Owner(n) for n in range(200)]
    got = codec.decode(codec.encode(value))
    last = weakref.ref(got[-1])
    del got
    assert last() is None


def test_many_objects_that_can_be_no_keys() -> None:
    value = [Unhashable(n) for n in range(200)]
    assert [each.x for each in carried(value)] == list(range(200))
    alike = [Incomparable(n) for n in range(200)]
    assert [each.x for each in carried(alike)] == list(range(200))


def test_the_error_of_a_post_init_is_short() -> None:
    content = msgpack.packb([f"{NAME}:Verbose", {"x": 1}])
    payload = Payload(msgpack.packb(msgpack.ExtType(23, content)))
    with pytest.raises(DecodeError, match=r"Verbose\.__post_init__ failed") as failed:
        Codec().decode(payload)
    assert len(str(failed.value)) < 5000


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Longer(1, 2), "make its class a dataclass"),
        (Words(), "make its class a dataclass"),
        (function_by_another_name, "names another function"),
        (function.__get__(1), "cannot carry method"),
        (len, "cannot carry builtin_function_or_method"),
    ],
)
def test_what_is_more_than_its_name_and_fields_is_refused(value: Any, reason: str) -> None:
    assert reason in str(refused([value]))


def test_a_named_tuple_with_more_than_its_fields_is_refused() -> None:
    place = LongPlace("there")
    place.since = 1900  # type: ignore[attr-defined]
    assert "more than its fields" in str(refused([place]))


def test_what_has_no_name_for_others_is_refused() -> None:
    @dataclasses.dataclass
    class Here:
        x: int = 0

    local = enum.Enum("local", "A")
    inner: Any = collections.namedtuple("inner", "a")
    for value in (Here(), inner(1), local.A, lambda: 1):
        text = str(refused([value]))
        assert "inside a function" in text or "has no '" in text


class Bomb(threading.Thread):
    """Must never be made of what comes."""

    def __init__(self, *args: Any) -> None:
        raise AssertionError("it was called")

    __post_init__ = __new__ = __init__  # type: ignore[assignment]
    _fields = ("a",)


NAME = __name__
MORE_THAN_FIELDS = {"x": 1, "y": 2, "norm": 3, "evil": 4}


@pytest.mark.parametrize(
    ("code", "content", "reason"),
    [
        (21, [f"{NAME}:Bomb", "a"], "is no Enum"),
        (21, [f"{NAME}:Mood", "mro"], "has no member 'mro'"),
        (21, [f"{NAME}:Mood", 1], "has no member 1"),
        (21, [f"{NAME}:Right", 99], "ValueError"),
        (21, [f"{NAME}:function", "a"], "is not a class"),
        (22, [f"{NAME}:Bomb", 1], "is no NamedTuple"),
        (22, ["builtins:tuple", 1], "is no NamedTuple"),
        (22, [f"{NAME}:Place", "a"], "has not 1 fields"),
        (22, [f"{NAME}:Place", "a", (), 1], "has not 3 fields"),
        (22, [], "not an encoded value"),
        (23, [f"{NAME}:Bomb", {}], "is no dataclass"),
        (23, ["subprocess:Popen", {"args": "id"}], "is no dataclass"),
        (23, [f"{NAME}:Words", {"language": ""}], "is no dataclass"),
        (23, [f"{NAME}:Vector", MORE_THAN_FIELDS], "has other fields"),
        (23, [f"{NAME}:Vector", {"x": 1}], "has other fields"),
        (23, [f"{NAME}:Vector", [1, 2, 3]], "has other fields"),
        (23, [f"{NAME}:Picky", {"x": -1}], "Picky.__post_init__ failed: ValueError"),
        (23, ["no_such_module:Cls", {}], "does not import"),
        (24, b"os:system", "is no function but of type builtin"),
        (24, f"{NAME}:Bomb".encode(), "is no function but of type type"),
        (24, b"\xff", "not an encoded value"),
    ],
)
def test_names_that_lead_elsewhere(code: int, content: Any, reason: str) -> None:
    packed = raw_ext(code, content) if type(content) is bytes else packed_ext(code, content)
    with pytest.raises(DecodeError, match=re.escape(reason)):
        Codec().decode(Payload(packed))


def test_which_classes_are_carried() -> None:
    codec = Codec([POINTS])
    carries = [int, tuple, type, Point, Picture, Mood, Place, Vector, np.ndarray, np.float32, UUID]
    assert [cls for cls in carries if not codec.carries(cls)] == []
    local = type("Local", (), {"_wire_state_": 1, "_from_wire_state_": 1, "__qualname__": "a.b"})
    refuses = [object, bytearray, Longer, Words, Bomb, local, range]
    assert [cls for cls in refuses if codec.carries(cls)] == []


def test_references() -> None:
    class Mine(Agent):
        pass

    codec = Codec(references=Addresses())
    assert carried([Mine("tcp://h:1/2")], codec) == [("proxy", "tcp://h:1/2", "test:Agent")]


def test_large_data_travels_beside_the_body() -> None:
    array = np.zeros((256, 256))
    codec = Codec([POINTS])
    value = ((LARGE, Picture(obj=LARGE, array=array), Point(LARGE)), {"array": array.T})
    payload = codec.encode(value)
    assert len(payload.body) < 500
    assert [memoryview(part).nbytes for part in payload.parts] == [
        LARGE_BYTES, LARGE_BYTES, array.nbytes, LARGE_BYTES, array.nbytes,
    ]  # fmt: skip
    assert payload.parts[0] is LARGE
    assert np.shares_memory(np.asarray(payload.parts[2]), array)
    assert np.shares_memory(np.asarray(payload.parts[4]), array)
    got = codec.decode(arrived(payload))
    assert got[0][0] == LARGE
    assert type(got[0][0]) is bytes


@pytest.mark.parametrize("less", [0, 1])
def test_from_which_size_on_an_array_travels_so(less: int) -> None:
    array = np.zeros(LARGE_ARRAY_BYTES - less, "u1")
    assert len(Codec().encode([array]).parts) == 1 - less


def test_there_are_never_too_many_parts() -> None:
    value = [LARGE] * MAX_PARTS
    assert len(Codec().encode(value).parts) == MAX_PARTS
    array = np.zeros(LARGE_ARRAY_BYTES, "u1")
    payload = Codec().encode(([array] * (MAX_PARTS + 3),))
    assert len(payload.parts) == MAX_PARTS
    assert len(Codec().decode(arrived(payload))[0]) == MAX_PARTS + 3


def test_a_payload_that_never_left_shares_no_memory() -> None:
    array = np.zeros((256, 256))
    codec = Codec()
    got = codec.decode(codec.encode(array))
    assert not np.shares_memory(got, array)


def test_several_threads_may_share_a_codec() -> None:
    codec = Codec()
    values = [((n, (n, (n,))), {"k": {(n,)}}) for n in range(300)]
    wrong: list[Any] = []

    def work() -> None:
        wrong.extend(value for value in values if carried(value, codec) != value)

    threads = [threading.Thread(target=work) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


# ---- numpy

DTYPES: list[Any] = [
    "?", "i1", "<u2", ">i4", "<i8", ">u8", "q", "Q", "l", "e", "f4", ">f8", "g", "c8", ">c16", "G",
    "S3", "<U3", ">U2", "V5", "M8[ns]", ">M8[D]", "M8[25s]", "m8[us]",
    [("a", "<f8"), ("b", ">i2", (2, 3)), ("c", [("x", "U3"), ("y", "?")])],
    {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [2, 0], "itemsize": 12},
    np.dtype([("a", "u1"), ("b", "f8")], align=True), [(("a title", "name"), "i4")], [],
]  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (4, 0, 2), (300, 100, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.dtype(each) for each in DTYPES], ids=str)
def test_arrays(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    size = math.prod(shape) * dtype.itemsize
    content = (bytes(range(3)) * (size // 3 + 1))[:size] if dtype.kind not in "?U" else bytes(size)
    array: Any = np.ndarray(shape, dtype, content)
    for value in (array, np.asfortranarray(array), array.T, array[::2] if shape else array):
        got = carried([value])[0]
        assert type(got) is np.ndarray
        assert got.shape == value.shape
        assert got.dtype == dtype
        assert got.dtype.char == dtype.char
        assert got.dtype.byteorder == dtype.byteorder
        assert got.dtype.isalignedstruct == dtype.isalignedstruct
        if dtype.names is None:
            assert got.tobytes() == value.tobytes()
        else:
            assert np.array_equal(got, value)
        assert got.flags.writeable
        assert got.flags.aligned
        if value.flags.forc:
            assert got.flags.fnc == value.flags.fnc


def test_arrays_without_memory_of_their_own() -> None:
    value = np.broadcast_to(np.arange(300.0), (300, 300))
    assert np.array_equal(carried(value), value)
    value = np.zeros((90, 100, 3)).transpose(1, 0, 2)
    assert np.array_equal(carried(value), value)


@pytest.mark.parametrize(
    "value",
    [
        np.bool_(True), np.int8(-1), np.uint64(2**64 - 1), np.longlong(3), np.float16(0.5),
        np.float64(-0.0), np.float64("nan"), np.longdouble(1) / 3, np.complex64(1j),
        np.str_("é\0"), np.str_(""), np.bytes_(b"a\0"), np.datetime64("2024-01-01T00:00:00.5"),
        np.datetime64("NaT", "s"), np.timedelta64(3, "D"), np.void(b"abc"),
        np.ones(1, [("a", ">f8"), ("b", "U2")])[0],
    ],
    ids=repr,
)  # fmt: skip
def test_scalars(value: Any) -> None:
    got = carried([value])[0]
    assert type(got) is type(value)
    assert got.dtype == value.dtype
    assert got.tobytes() == value.tobytes()


def test_structured_scalars_may_be_written_to() -> None:
    got = carried(np.ones(1, [("a", "f8")])[0])
    got["a"] = 2
    assert got["a"] == 2


def test_numpy_values_where_numpy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = arrived(Codec().encode(((np.float64(1),), {"a": np.zeros(3)})))
    from creamas_sc import wire

    monkeypatch.delattr(wire, "numpy_values")
    monkeypatch.delitem(sys.modules, "creamas_sc.wire.numpy_values")
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(DecodeError, match="numpy is not installed"):
        Codec().decode(payload)
    assert "Point" in str(refused(Point(1)))


# ---- what is refused


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (((1, {"x": [1, 2, 3, Point(1)]}), {}), "args[1]['x'][3]", f"{__name__}.Point"),
        (((), {"k": ({Point(1)},)}), "kwargs['k'][0]{...}", f"{__name__}.Point"),
        (((Picture(a=[Point(1)]),), {}), "args[0].a[0]", f"{__name__}.Point"),
        (([range(3)],), "args[0][0]", "range"),
        ([Pair(1, Point(2))], "args[0][1]", f"{__name__}.Point"),
        ([Vector(1, Point(2))], "args[0].y", f"{__name__}.Point"),
        ([lambda: 1], "args[0]", "function"),
        ([collections.OrderedDict()], "args[0]", "collections.OrderedDict"),
        ([len], "args[0]", "builtin_function_or_method"),
        (((bytearray(1),), {}), "args[0]", "bytearray"),
        (((), {"k": memoryview(b"")}), "kwargs['k']", "memoryview"),
        (Picture(a=bytearray(1)), "args.a", "bytearray"),
        ([np.array([Point(1)])], "args[0]", "array of object"),
        (np.zeros(1, [("a", "O")]), "args", "array of [('a', 'O')]"),
        (np.ma.array([1]), "args", "numpy.ma.MaskedArray"),
        (
            dt.datetime(2024, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {})()),
            "args.tzinfo",
            f"{__name__}.Z",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_refusal_names_type_and_place(value: Any, path: str, type_name: str) -> None:
    error = refused(value)
    assert error.path == path
    assert error.type_name == type_name
    assert str(error).startswith(f"{path}: cannot carry {type_name}: ")


def test_a_key_is_named_by_itself() -> None:
    assert refused({1: {Point(1): 2}}).path.startswith("args[1]{key <")


def test_the_root_may_have_a_name() -> None:
    assert refused((1, Point(1)), root="result").path == "result[1]"


def test_a_refusal_tells_what_user_code_raised() -> None:
    def fail(point: Point) -> Any:
        raise KeyError("not today")

    for value in ([Shy()], [Point(1)]):
        error = refused(value, Codec([Serializer(Point, "p", fail, fail)]))
        assert error.path == "args[0]"
        assert "KeyError: 'not today'" in str(error)


def test_a_class_that_nobody_else_can_load_is_refused() -> None:
    class Local(Picture):
        pass

    impostor = type("Picture", (Picture,), {"__module__": __name__})
    for cls, reason in ((Local, "inside a function"), (impostor, "names another class")):
        assert reason in str(refused([cls]))
        assert reason in str(refused([cls()]))
    assert "has no 'NoneType'" in str(refused([type(None)]))


def test_a_state_must_be_a_dict() -> None:
    assert "must return a dict" in str(refused(Odd()))


def test_clashing_serializers() -> None:
    other = Serializer(Level, "point", int, Level)
    with pytest.raises(ValueError, match="cannot register"):
        Codec([POINTS, other])


# ---- depth


@pytest.mark.parametrize(
    ("levels", "wrap"),
    [
        (MAX_DEPTH, lambda v: (v,)),
        (MAX_DEPTH - 1, lambda v: frozenset({v})),
        (400, lambda v: [v]),
        (400, lambda v: {"k": v}),
        (MAX_DEPTH - 1, lambda v: ([{"k": [v, "x" * 50]}],)),
    ],
)
def test_deep_values(levels: int, wrap: Callable[[Any], Any]) -> None:
    value = nested(levels, wrap)
    assert carried(value) == value


def test_deeper_than_python_compares() -> None:
    value = carried(nested(1000, lambda v: [v]))
    for _ in range(1000):
        (value,) = value


@pytest.mark.parametrize(
    ("levels", "wrap"),
    [
        (MAX_DEPTH + 2, lambda v: (v,)),
        (1100, lambda v: [v]),
        (100_000, lambda v: {"k": v}),
        (MAX_DEPTH - 2, lambda v: (nested(900, lambda w: [w]), v)),
        (MAX_DEPTH - 2, lambda v: (nested(900, lambda w: [w]), [v] * 2)),
    ],
)
def test_values_too_deep_are_refused(levels: int, wrap: Callable[[Any], Any]) -> None:
    assert "nested too deeply" in str(refused(nested(levels, wrap)))


def test_values_that_hold_themselves_are_refused() -> None:
    lists: list[Any] = []
    lists += [lists, lists]
    tuples: list[Any] = []
    tuples.append((tuples, [tuples]))
    picture = Picture()
    picture.state["self"] = picture
    for value in (lists, tuples, picture):
        assert "holds itself" in str(refused(value))


# ---- decoding


class PretendsAll(type):
    def __getattr__(cls, name: str) -> Any:
        return lambda *args: calls.append(name)

    @property
    def _fields(cls) -> tuple[str, ...]:
        calls.append("_fields")
        return ("x",)


class Pretender(metaclass=PretendsAll):
    """A class that has every attribute, of its metaclass's making."""


calls: list[str] = []


def raw_ext(code: int, data: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, data))
    return packed


def packed_ext(code: int, value: Any) -> bytes:
    return raw_ext(code, msgpack.packb(value))


def deep_tuples(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = raw_ext(0, b"\x91" + data if data else data)
    return data


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xc1", b"\x93\x01", b"\x01\x02", b"\xa5ab", b"\xc4\xff", b"\x90", b"\x91\x01",
        b"\x92\x01\xc0", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" * 2000, b"\x91" * 2000, b"\x91" * 100_000, b"\x81\xc0" * 5000,
        b"\x81\x90\xc0", b"\x81\x80\xc0", deep_tuples(MAX_DEPTH + 5), deep_tuples(3000),
        packed_ext(99, 1), b"\xd4\xff\x00", packed_ext(0, {"a": 1}), packed_ext(0, 5),
        packed_ext(2, [[]]), packed_ext(3, [{}]), packed_ext(4, 1), packed_ext(5, [1]),
        packed_ext(5, [2024, 13, 1, 0, 0, 0, 0, None, 0]), packed_ext(5, ["a"] * 9),
        packed_ext(6, [0, 0, 0]), packed_ext(7, [1]), packed_ext(8, [2**62, 0, 0]),
        packed_ext(9, [1]), packed_ext(9, []), packed_ext(12, 1),
        raw_ext(10, b"../../etc/passwd"),
        raw_ext(10, b"No/Where"), raw_ext(11, b"x"),
        raw_ext(13, b"no_such_module:Cls"),
        raw_ext(13, b"os:getpid"), raw_ext(13, b"\xff"),
        packed_ext(14, ["point", 1]), packed_ext(14, [[], 1]), packed_ext(14, 1),
        packed_ext(15, ["builtins:dict", {}]), packed_ext(15, [5, {}]), packed_ext(15, [[], {}]),
        packed_ext(15, ["no_such_module:Cls", {}]), packed_ext(16, ["a", "b"]),
        packed_ext(17, ["|O", "C", [1], bytes(8)]), packed_ext(17, ["<f8", "C", [2], bytes(8)]),
        packed_ext(17, ["<f8", "C", [-1, -1], bytes(8)]), packed_ext(17, ["<f8", "C", [1], 0]),
        packed_ext(17, ["<f8", "X", [1], bytes(8)]), packed_ext(17, ["nope", "C", [1], bytes(8)]),
        packed_ext(17, ["i4,i4", "C", [1], bytes(8)]), packed_ext(17, [[], "C", [1], bytes(8)]),
        packed_ext(17, ["<f8", "C", [2**63, 0], b""]), packed_ext(17, ["<f8", "C", None, b""]),
        packed_ext(17, [[["a", "|O", 0, None]], "C", [1], bytes(8)]),
        packed_ext(18, ["|O", bytes(8)]), packed_ext(18, ["<f8", bytes(7)]), packed_ext(18, [1, 1]),
        # A few bytes that would take minutes, or all memory.
        packed_ext(18, [None, 5]), packed_ext(18, [None, [1 << 40]]),
        packed_ext(17, ["V0", "C", [1 << 25], b""]),
        packed_ext(17, ["i4", "C", [1 << 62] * 65, b""]),
        packed_ext(17, [[[], 0, False], "C", [1 << 13, 1 << 12], b""]),
        packed_ext(17, ["i4", "C", [b"", 1], b""]), packed_ext(20, [5, [[1]], [0] * 9]),
        packed_ext(15, [f"{__name__}:Pretender", {}]),
        packed_ext(21, [f"{__name__}:Pretender", "x"]),
        packed_ext(22, [f"{__name__}:Pretender", 1]),
        packed_ext(23, [f"{__name__}:Pretender", {"x": 1}]),
        raw_ext(19, b"\0\0"), raw_ext(19, b"\xff" * 99),
    ],
    ids=lambda body: body[:12].hex(),
)  # fmt: skip
def test_bytes_that_are_no_value(body: bytes) -> None:
    codec = Codec()
    with pytest.raises(DecodeError):
        codec.decode(Payload(body))
    assert carried((1, (2,)), codec) == (1, (2,))
    assert not calls


def test_an_error_within_errors_is_no_description() -> None:
    group: dict[str, Any] = {
        "code": "AgentErrors",
        "message": "",
        "fields": {},
        "failures": [],
        "results": [],
    }
    for _ in range(20):  # each level would double what the message escapes
        group = {**group, "failures": [group]}
    with pytest.raises(DecodeError) as caught:
        from_wire(group)
    assert len(str(caught.value)) < 200
    with pytest.raises(DecodeError, match="a message of type int"):
        from_wire({"code": "StartError", "message": 10**5000, "fields": {}})


def test_decoding_tells_what_is_missing() -> None:
    payload = Codec([POINTS]).encode([Point(1)])
    with pytest.raises(DecodeError, match="no serializer 'point' is registered here"):
        Codec().decode(payload)
    with pytest.raises(DecodeError, match=r"'no_such_module' of .* does not import"):
        Codec().decode(Payload(packed_ext(15, ["no_such_module:Cls", {}])))
    broken = Serializer(Point, "point", POINTS.encode, lambda data: Point(data[0], data["y"]))
    with pytest.raises(DecodeError, match="serializer 'point' failed to decode: TypeError"):
        Codec([broken]).decode(payload)


def test_what_a_large_value_took_is_given_up_at_once() -> None:
    """Buffers of the size of messages are not left to the garbage collector."""

    def packers() -> int:
        return sum(type(each) is msgpack.Packer for each in gc.get_objects())

    codec = Codec()
    large = ["x" * (1 << 21)]
    codec.encode(large)
    gc.collect()
    before = packers()
    for _ in range(3):
        codec.encode(large)
    assert packers() == before


def test_what_cannot_be_decoded_leaves_the_rest() -> None:
    def refuse(data: Any) -> Any:
        raise ValueError("not here")

    point = Point(1, 2)
    values = [1, [point, (2, 3)], {"a": {point}}, (point,), LARGE]
    payload = Codec([POINTS]).encode(values)
    here = Codec([Serializer(Point, "point", POINTS.encode, refuse)])
    with pytest.raises(DecodeError, match="not here"):
        here.decode(payload)
    first, [bad, good], worse, worst, large = here.decode_leniently(payload)
    assert (first, good, large) == (1, (2, 3), LARGE)
    for value in (bad, [[bad]], worse, worst, {1: (bad,)}):
        found = Undecodable.within(value)
        assert found is not None
        assert "not here" in str(found.error)
    assert Undecodable.within([first, good, large, {"a": set()}]) is None
    assert here.decode(here.encode([1])) == [1]
