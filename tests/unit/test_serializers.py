"""The registry of users' classes, and what environments make of it."""

from __future__ import annotations

import pickle
from typing import Any

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
        ((Point, None, decode), TypeError, "an encode and a decode function"),
        ((Point, encode, "x"), TypeError, "an encode and a decode function"),
        ((Point, encode, decode, ""), TypeError, "must be a str, not ''"),
        ((int, encode, decode), ValueError, "int is a builtin"),
        ((Point, pickle.dumps, pickle.loads), ValueError, "cannot be pickled"),
        ((Point, encode, pickle.loads), ValueError, "cannot be pickled"),
        ((Image, pickle.dumps, pickle.loads), ValueError, "a subclass of Artifact needs no"),
    ],
)
def test_what_cannot_be_registered(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        register(*arguments)
    with pytest.raises(error, match=message):
        to_serializers([lambda: arguments])
    assert to_serializers() == []


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
