"""Artifacts from slaves: their order, and those that arrive in two ways."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from creamas_sc import Artifact
from creamas_sc.mp.artifacts import ArtifactInbox

ONE, TWO = "tcp://localhost:1/", "tcp://localhost:2/"


class Shelf:
    """Stands in for a multi-environment."""

    def __init__(self) -> None:
        self.artifacts: list[Artifact] = []

    def add_artifact(self, artifact: Artifact) -> None:
        self.artifacts.append(artifact)


class Odd(Artifact):
    """Cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("no")

    __hash__ = Artifact.__hash__


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def inbox(shelf: Any) -> ArtifactInbox:
    return ArtifactInbox(shelf)


def art(obj: Any) -> Artifact:
    return Artifact("me", obj)


def objects(shelf: Shelf) -> list[Any]:
    return [artifact.obj for artifact in shelf.artifacts]


def test_those_of_a_step_are_added_at_its_end_in_slave_order(
    shelf: Shelf, inbox: ArtifactInbox
) -> None:
    inbox.take(TWO, None, art(0))
    with inbox.step([ONE, TWO]):
        for url, obj in (("another", 5), (TWO, 3), (ONE, 1), (TWO, 4), (ONE, 2)):
            inbox.take(url, None, art(obj))
        assert objects(shelf) == [0]
    assert objects(shelf) == [0, 1, 2, 3, 4, 5]
    inbox.take(TWO, None, art(6))
    assert objects(shelf)[-1] == 6


def test_those_of_a_step_that_fails_are_added(shelf: Shelf, inbox: ArtifactInbox) -> None:
    def step() -> None:
        with inbox.step([ONE]):
            inbox.take(ONE, None, art(1))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        step()
    assert objects(shelf) == [1]


def test_what_was_added_in_the_step_is_added_once(shelf: Shelf, inbox: ArtifactInbox) -> None:
    shelf.add_artifact(art(3))  # before the step: it is another one
    with inbox.step([ONE]):
        for obj in (1, [2], 3, [2], [2]):
            inbox.take(ONE, None, art(obj))
        for obj in ([2], 4, 4, [2]):
            shelf.add_artifact(art(obj))
    assert objects(shelf) == [3, [2], 4, 4, [2], 1, 3, [2]]


def test_equal_ones_of_one_way_all_stay(shelf: Shelf, inbox: ArtifactInbox) -> None:
    with inbox.step([ONE]):
        inbox.take(ONE, None, art(1))
        inbox.take(ONE, None, art(1))
        shelf.add_artifact(art(2))
        shelf.add_artifact(art(2))
    assert objects(shelf) == [2, 2, 1, 1]


def test_what_cannot_be_compared_is_kept(
    shelf: Shelf, inbox: ArtifactInbox, caplog: pytest.LogCaptureFixture
) -> None:
    with inbox.step([ONE]):
        inbox.take(ONE, None, Odd("me", 1))
        shelf.add_artifact(Odd("me", 1))
    assert objects(shelf) == [1, 1]
    assert caplog.record_tuples == [
        (
            "creamas_sc.mp.artifacts",
            logging.ERROR,
            "artifacts that were published and reported could not be compared",
        )
    ]
