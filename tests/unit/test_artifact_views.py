"""Artifacts as plain values, for whoever shows them: bounded, whatever their classes do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from creamas_sc import Artifact
from creamas_sc.errors import BadValue
from creamas_sc.results import artifact_views
from creamas_sc.results.artifact_views import LONG_TEXT, TEXT_LENGTH, ArtifactViews, score
from creamas_sc.rpc.rounds.order import Order

NUMBERS: dict[str, Order] = {"tcp://a:1/1": 0, "tcp://a:1/2": (0, 3)}


class Broken(Artifact):
    """Nothing of it works."""

    @property
    def evals(self) -> Any:
        raise SystemExit("no evaluations")


class Drawn(Artifact):
    """Shows itself."""

    def _repr_svg_(self) -> str:
        return "<svg/>"


class Shy:
    """Has no text."""

    def __repr__(self) -> str:
        raise ValueError("no text")


def artifact(creator: str = "tcp://a:1/1", obj: Any = 1, **evaluations: Any) -> Artifact:
    made = Artifact(creator, obj, domain="d")
    made.env_time = 4
    for name, value in evaluations.items():
        made.add_eval(name, value, "framing")
    return made


def views_of(*artifacts: Artifact) -> ArtifactViews:
    return ArtifactViews(list(artifacts), lambda address: NUMBERS.get(address))


def test_scores() -> None:
    views = views_of(
        artifact(a=1, b=0.5, c="good", d=None, e=True),
        artifact("tcp://a:1/2"),
        artifact("Ada", a=math.nan, b=np.float32(2)),
    )
    assert views.scores(0, 100) == {
        "total": 3,
        "step": [4, 4, 4],
        "agent": ["0", "0.3", "Ada"],
        "score": [0.75, None, 2.0],
    }
    assert views.scores(2, 100)["agent"] == ["Ada"]
    assert views.scores(9, 100)["agent"] == []
    assert len(views.scores(0, 1)["agent"]) == 1


def test_scores_come_in_small_parts() -> None:
    views = views_of(*[artifact()] * 3000)
    found = views.scores(0, 10**9)
    assert (found["total"], len(found["score"])) == (3000, 2000)


@pytest.mark.parametrize("bad", [-1, 1.0, "1", None, True])
def test_what_is_no_part(bad: Any) -> None:
    with pytest.raises(BadValue, match="since must be"):
        views_of().scores(bad, 1)
    with pytest.raises(BadValue, match="limit must be"):
        views_of().scores(0, bad)


def test_a_score_is_a_number_or_none() -> None:
    assert score([10**400, 1]) is None
    assert score([math.inf, 1]) == 1
    assert score([]) is None


def test_a_view_of_many_is_short() -> None:
    (found,) = views_of(artifact(obj="x" * 5000, a=1)).views([0], False, 256)
    assert set(found) == {
        *("artifact", "step", "agent", "creator", "class", "domain", "object_class"),
        *("score", "evaluated", "text", "look"),
    }
    assert (found["artifact"], found["step"], found["evaluated"]) == (0, 4, 1)
    assert len(found["text"]) < TEXT_LENGTH + 100


def test_a_whole_view() -> None:
    made = artifact(obj="x" * 5000, a=1)
    made.add_feature_value("novelty", 0.5)
    (found,) = views_of(made).views([0], True, 256)
    assert found["evaluations"] == {"a": 1}
    assert found["framings"] == {"a": "framing"}
    assert found["features"] == {"novelty": 0.5}
    assert LONG_TEXT < len(found["text"]) < LONG_TEXT + 100


def test_numbers_that_there_are_not_are_left_out() -> None:
    found = views_of(artifact(), artifact()).views([1, 2, -1, 0], False, 256)
    assert [each["artifact"] for each in found] == [1, 0]


@pytest.mark.parametrize(
    ("numbers", "side"),
    [(range(101), 1), (["1"], 1), ([True], 1), ([0], 0), ([0], 513), ([0], 1.0)],
)
def test_what_is_too_much(numbers: Any, side: Any) -> None:
    with pytest.raises(BadValue):
        views_of(artifact()).views(numbers, False, side)


def test_a_class_that_is_broken() -> None:
    views = views_of(Broken("Ada", Shy()))
    assert views.scores(0, 1)["score"] == [None]
    (found,) = views.views([0], True, 256)
    assert (found["creator"], found["score"], found["evaluated"]) == (None, None, 0)
    assert found["class"].endswith(":Broken")
    assert "cannot be printed" in found["text"]


def test_looks() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    found = views_of(artifact(obj=pixels), Drawn("Ada", pixels), artifact()).views(
        [0, 1, 2], False, 9
    )
    assert [each["look"] and each["look"][0] for each in found] == ["pixels", "image/svg+xml", None]
    assert found[0]["look"] == ("pixels", bytes(64), 8, 8, 1)


def test_looks_of_an_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_views, "LOOK_BYTES", 150)
    found = views_of(*[artifact(obj=np.zeros((8, 8), np.uint8))] * 3).views([0, 1, 2], False, 9)
    assert [each["look"] is None for each in found] == [False, False, True]
