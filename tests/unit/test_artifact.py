"""Artifacts: what is said about them, equality, and the state in which they travel."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from unittest.mock import ANY

import pytest

from creamas_sc.core.artifact import Artifact
from creamas_sc.errors import DecodeError
from creamas_sc.rpc.exposed import Proxy

np = pytest.importorskip("numpy")


class Named:
    name = "ada"


class Image(Artifact):
    def __init__(self, creator: Any, obj: Any) -> None:
        super().__init__(creator, obj, domain="image")
        self.novelty = 0.5


class Slotted(Artifact):
    __slots__ = ("width",)
    width: int


@dataclass
class Point:
    """Has ``==`` but no hash."""

    x: int


def travelled(artifact: Artifact) -> Artifact:
    state = artifact._wire_state_()
    return type(artifact)._from_wire_state_({name: copied(v) for name, v in state.items()})


def copied(value: Any) -> Any:
    """An equal object that shares nothing with ``value``, nan included."""
    if isinstance(value, float):
        return float(repr(value))
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return deepcopy(value) if isinstance(value, np.ndarray) else value


def test_attributes() -> None:
    artifact = Artifact("ada", [1, 2])
    assert (artifact.creator, artifact.obj, artifact.domain) == ("ada", [1, 2], int)
    assert artifact.evals == artifact.framings == artifact.feature_values == {}
    assert artifact.env_time is None
    assert Artifact("ada", 1, domain="image").domain == "image"


def test_the_creator_may_be_the_agent() -> None:
    assert Artifact(Named(), 1).creator == "ada"


@pytest.mark.parametrize("creator", [None, 3, Proxy(None, "tcp://localhost:5556/1")])  # type: ignore[arg-type]
def test_a_creator_needs_a_name(creator: Any) -> None:
    with pytest.raises(TypeError, match="expected an agent or its name"):
        Artifact(creator, 1)


def test_evaluations_replace_earlier_ones() -> None:
    artifact = Artifact("ada", 1)
    artifact.add_eval(Named(), 0.1, fr="dull")
    artifact.add_eval("bob", 0.7)
    artifact.add_eval("ada", 0.2)
    assert artifact.evals == {"ada": 0.2, "bob": 0.7}
    assert artifact.framings == {"ada": None, "bob": None}


def test_an_evaluation_needs_a_name() -> None:
    artifact = Artifact("ada", 1)
    with pytest.raises(TypeError, match="expected an agent or its name, not 3"):
        artifact.add_eval(3, 0.1)
    assert artifact.evals == {}


def test_feature_values() -> None:
    artifact = Artifact("ada", 1)
    assert artifact.get_feature_value("size") is None
    artifact.add_feature_value("size", 1)
    artifact.add_feature_value("size", 0)
    assert artifact.get_feature_value("size") == 0
    assert artifact.feature_values == {"size": 0}


def test_text_forms() -> None:
    assert str(Artifact("ada", [1])) == "ada:[1]"
    assert repr(Image("ada", "x")) == "Image('ada', 'x')"
    assert len(repr(Artifact("ada", list(range(10_000))))) < 100


OBJECTS = [
    None,
    3,
    2.5,
    math.nan,
    complex(1, math.nan),
    Decimal("NaN"),
    "text",
    b"bytes",
    int,
    [1, [2.0, math.nan]],
    (1, (2, [3])),
    {"a": [1], (1, 2): {3}},
    {1, 2},
    {math.nan},
    date(2020, 1, 1),
    Point(1),
    [Point(1)],
    np.arange(1100.0).reshape(11, 100),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([1.0, math.nan]),
    np.array(3),
    np.array([[1], None], dtype=object),
    np.float32("nan"),
    {"pair": (np.zeros(2), 1)},
]


@pytest.mark.parametrize("obj", OBJECTS, ids=repr)
def test_an_artifact_that_travelled_is_equal(obj: Any) -> None:
    artifact = Artifact("ada", obj)
    other = travelled(artifact)
    assert other == artifact
    assert hash(other) == hash(artifact)
    assert other in {artifact}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ("1", 1),
        ([1], (1,)),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        ({1}, {2}),
        (1.5, 2.5),
        (date(2020, 1, 1), date(2020, 1, 2)),
        (Point(1), Point(2)),
        (math.nan, "nan"),
        (np.zeros(3), np.zeros(4)),
        (np.zeros(4), np.zeros((2, 2))),
        (np.zeros(3), np.zeros(3, dtype="f4")),
        (np.zeros(3), [0.0, 0.0, 0.0]),
        (np.array([[1], None], dtype=object), np.array([[2], None], dtype=object)),
    ],
)
def test_artifacts_with_other_objects_differ(one: Any, other: Any) -> None:
    assert Artifact("ada", one) != Artifact("ada", other)


def test_large_arrays_are_compared_in_full() -> None:
    image = np.zeros((64, 64))
    altered = image.copy()
    altered[32, 32] = 1
    assert str(image) == str(altered), "numpy prints the corners only"
    assert Artifact("ada", image) != Artifact("ada", altered)


def test_creator_domain_and_class_count() -> None:
    artifact = Artifact("ada", 1)
    assert artifact == Artifact("ada", 1)
    assert artifact != Artifact("bob", 1)
    assert artifact != Artifact("ada", 1, domain="image")
    assert Image("ada", 1) != Artifact("ada", 1, domain="image")
    assert artifact != "ada:1"
    assert artifact == ANY, "the other side is asked too"


def test_what_was_said_does_not_count() -> None:
    artifact, other = Artifact("ada", 1), Artifact("ada", 1)
    artifact.add_eval("bob", 1.0)
    artifact.env_time = 3
    assert artifact == other
    assert hash(artifact) == hash(other)


def test_everything_travels() -> None:
    image = Image("ada", [1])
    image.add_eval("bob", 0.3, fr=("why", 1))
    image.add_feature_value("size", 2)
    image.env_time = 7
    image.novelty = 0.9
    other = travelled(image)
    assert type(other) is Image
    assert vars(other) == vars(image)


def test_slots_travel() -> None:
    artifact = Slotted("ada", 1)
    artifact.width = 3
    other = travelled(artifact)
    assert isinstance(other, Slotted)
    assert (other.width, other.obj) == (3, 1)


def test_the_state_is_a_snapshot() -> None:
    artifact = Artifact("ada", 1)
    state = artifact._wire_state_()
    artifact.env_time = 1
    assert "env_time" not in state


@pytest.mark.parametrize("name", ["__class__", "__dict__", 3])
def test_a_state_cannot_reach_beyond_attributes(name: Any) -> None:
    with pytest.raises(DecodeError, match="is not an attribute of Artifact"):
        Artifact._from_wire_state_({name: Image})
