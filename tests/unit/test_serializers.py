"""The registry of users' classes, and what environments make of it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import pytest

from creamas_sc import serializers
from creamas_sc.core.artifact import Artifact
from creamas_sc.serializers import MsgPack, check_codec, get_serializers, register, to_serializers
from creamas_sc.wire.codec import Serializer


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


class Other:
    pass


class Image(Artifact):
    pass


class Pair(NamedTuple):
    x: int


class Colour(Enum):
    RED = 1


@dataclass
class Plain:
    x: int = 0


def encode(point: Any) -> list[int]:
    return [point.x, point.y]


def decode(pair: list[int]) -> Any:
    return Point(*pair)


def triple() -> tuple[Any, ...]:
    return Point, encode, decode


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serializers, "_registry", {})
    monkeypatch.setattr(serializers, "_followers", [])


def test_a_registered_class_reaches_every_codec() -> None:
    register(Point, encode, decode)
    (found,) = to_serializers()
    assert (found.cls, found.name) == (Point, f"{__name__}:Point")
    point = found.decode(found.encode(Point(1, 2)))
    assert (point.x, point.y) == (1, 2)


def test_a_class_can_have_a_name_of_its_own() -> None:
    register(Point, encode, decode, name="point")
    assert [s.name for s in to_serializers()] == ["point"]
    register(Point, encode, decode)
    assert [s.name for s in to_serializers()] == [f"{__name__}:Point"], "one name a class"
    register(Other, encode, decode, name="point")  # which is free again


def test_registering_again_replaces() -> None:
    register(Point, encode, decode)
    register(Point, encode, lambda pair: Point(0, 0))
    (found,) = to_serializers()
    assert found.decode([1, 2]).x == 0


def test_a_module_that_is_loaded_again_replaces() -> None:
    again = type("Point", (), {"__module__": __name__, "__qualname__": "Point"})
    register(Point, encode, decode)
    register(again, encode, decode)
    assert [s.cls for s in to_serializers()] == [again]


def test_a_name_belongs_to_one_class() -> None:
    register(Point, encode, decode, name="point")
    with pytest.raises(ValueError, match=r"Other cannot be registered as 'point'.*Point"):
        register(Other, encode, decode, name="point")
    assert [s.cls for s in to_serializers()] == [Point]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, encode, decode), TypeError, "needs a class, not 3"),
        (([].append, encode, decode), TypeError, "needs a class, not <built-in method"),
        ((Point, None, decode), TypeError, "an encode and a decode function"),
        ((Point, encode, "x"), TypeError, "an encode and a decode function"),
        ((Point, encode, decode, ""), TypeError, "must be a str, not ''"),
        ((int, encode, decode), ValueError, "int is a builtin"),
        ((Point, pickle.dumps, pickle.loads), ValueError, "cannot be pickled"),
        ((Point, encode, pickle.loads), ValueError, "cannot be pickled"),
        ((object, pickle.dumps, pickle.loads), ValueError, "no serializer for all objects at once"),
    ],
)
def test_what_cannot_be_registered(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        register(*arguments)
    if arguments[0] is not int:
        with pytest.raises(error, match=message):
            to_serializers([lambda: arguments])
    assert to_serializers() == []


def test_pickle_cannot_be_registered_for_what_travels_without() -> None:
    with pytest.raises(ValueError, match="A subclass of Artifact needs no serializer"):
        register(Image, pickle.dumps, pickle.loads)


def test_the_error_names_the_way_out() -> None:
    with pytest.raises(ValueError, match="Point cannot be pickled") as caught:
        to_serializers([lambda: (Point, pickle.dumps, pickle.loads)])
    *lines, call = [line.strip() for line in str(caught.value).splitlines() if line[:4] == "    "]
    exec("\n".join(lines), namespace := dict(globals()))
    eval(call, namespace)
    (found,) = to_serializers()
    assert found.decode(found.encode(Point(1, 2))).y == 2


def pickled(*classes: Any) -> list[Any]:
    """Makers as programs for creamas have them."""
    return [partial(tuple, (cls, pickle.dumps, pickle.loads)) for cls in classes]


def test_what_creamas_needed_is_ignored_with_one_warning() -> None:
    numpy = pytest.importorskip("numpy")
    needless = pickled(
        numpy.ndarray, numpy.array, type, tuple, Image, Pair, Colour, Plain, type(encode)
    )
    needless.append(lambda: (set, list, set))
    with pytest.warns(UserWarning, match="are ignored") as warned:
        assert to_serializers([*needless, triple]) == to_serializers([triple])
    assert [str(warning.message) for warning in warned] == [
        "extra_serializers for ndarray, array, type, tuple, Image, Pair, Colour, Plain, function, "
        "set are ignored: these travel without"
    ]


def test_pickle_is_ignored_for_what_is_registered() -> None:
    register(Point, encode, decode)
    with pytest.warns(UserWarning, match="for Point are ignored"):
        assert to_serializers(pickled(Point)) == to_serializers()


def test_functions_for_a_dataclass_are_used() -> None:
    assert [s.cls for s in to_serializers([lambda: (Plain, vars, lambda state: Plain(**state))])]


def test_extra_serializers_come_in_place_of_and_beside_registered_ones() -> None:
    register(Point, encode, lambda pair: Point(0, 0))
    register(Other, encode, decode)
    found = {s.cls: s for s in to_serializers([triple])}
    assert set(found) == {Point, Other}
    assert found[Point].decode([1, 2]).x == 1
    assert to_serializers([lambda: (*triple(), "point")])[0].name == "point"


@pytest.mark.parametrize("extra", [3, lambda: Point, lambda: (Point, encode)])
def test_extra_serializers_of_another_form(extra: Any) -> None:
    with pytest.raises(TypeError, match=r"callables that return \(cls, encode, decode\)"):
        to_serializers([extra])


def test_the_default_is_nothing_but_what_is_registered() -> None:
    assert to_serializers(get_serializers()) == []
    register(Point, encode, decode, name="point")
    assert to_serializers(get_serializers()) == [
        Serializer(cls=Point, name="point", encode=encode, decode=decode)
    ]


def test_followers_hear_of_what_is_registered_later() -> None:
    class Codec:
        def __init__(self) -> None:
            self.known: list[str] = []

        def add(self, serializer: Serializer) -> None:
            self.known.append(serializer.name)

    codec, gone = Codec(), Codec()
    register(Other, encode, decode, name="before")
    serializers.follow(codec.add)
    serializers.follow(gone.add)
    del gone
    register(Point, encode, decode, name="after")
    assert codec.known == ["after"]
    assert len(serializers._followers) == 1, "the other is forgotten"


def test_creamas_names_stay_usable() -> None:
    numpy = pytest.importorskip("numpy")
    names = [
        serializers.artifact_serializer,
        serializers.array_serializer,
        serializers.ndarray_serializer,
    ]
    assert [name()[0] for name in names] == [Artifact, numpy.ndarray, numpy.ndarray]
    assert to_serializers(names) == [], "they travel as they are"


def test_the_only_codec() -> None:
    check_codec(None)
    check_codec(MsgPack)
    with pytest.raises(TypeError, match=r"codec Other is not supported.*MessagePack"):
        check_codec(Other)
    with pytest.raises(TypeError, match="codec 'json' is not supported"):
        check_codec("json")
