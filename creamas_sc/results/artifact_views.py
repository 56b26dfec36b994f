"""Artifacts as a page shows them: the same of a running simulation as of a record.

A `view` is a dict of plain values: the columns of the table ``artifacts`` up to ``object_class``,
and ``score`` (the mean of the numeric evaluations, None without one), ``evaluated`` (how many
evaluations there are), ``text`` and ``look``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from creamas_sc.errors import BadValue
from creamas_sc.foreign import is_ctrl_c, shorten, shown
from creamas_sc.results.columns import plain
from creamas_sc.results.describing import NumberOf, artifact_fields
from creamas_sc.rpc.rounds.order import text_of
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.pictures import MAX_SIDE, look, own_look

# The most that is asked for at a time: so no request holds a simulation up for long.
MOST_SCORES: Final = 2000
MOST_VIEWS: Final = 100
# Of an object in a list of many, and of a single one.
TEXT_LENGTH: Final = 200
LONG_TEXT: Final = 4000
# Of all looks of an answer; those that do not fit are left out.
LOOK_BYTES: Final = 24 << 20


def score(evaluations: Iterable[Any]) -> float | None:
    """The mean of the numbers among evaluations; None if there are none."""
    numbers = [value for value in map(plain, evaluations) if type(value) in (int, float)]
    try:
        numbers = [value for value in numbers if math.isfinite(value)]
        return math.fsum(numbers) / len(numbers) if numbers else None
    except OverflowError:  # an int that no float is as large as
        return None


def view(
    fields: Mapping[str, Any], obj: Any, *, whole: bool, side: int = MAX_SIDE
) -> dict[str, Any]:
    """A view.

    Args:
        fields: As of `artifact_fields`.
        obj: The artifact's object.
        whole: With ``evaluations``, ``framings`` and ``features``, and a longer text.
        side: As of `look`.
    """
    parts = ("evaluations", "framings", "features")
    evaluations = fields["evaluations"] or {}
    return {
        **{name: value for name, value in fields.items() if whole or name not in parts},
        "score": score(evaluations.values()),
        "evaluated": len(evaluations),
        "text": text(obj, LONG_TEXT if whole else TEXT_LENGTH),
        "look": look(obj, side),
    }


def text(obj: Any, length: int) -> str:
    """An object as text: text itself, the ``repr`` of anything else."""
    if isinstance(obj, str):
        return shorten(obj, length)
    try:
        return shorten(repr(obj), length)
    except BaseException as error:  # user code may raise anything, SystemExit included
        if is_ctrl_c(error):
            raise
        return shown(obj)


class ArtifactViews:
    """The artifacts of a running simulation.

    Args:
        artifacts: All of them; more may come.
        number_of: The number of the agent at an address.
    """

    def __init__(self, artifacts: list[Any], number_of: NumberOf) -> None:
        self._artifacts, self._number_of = artifacts, number_of

    def scores(self, since: int, limit: int) -> dict[str, Any]:
        """``total``, and columns: the ``step``, ``agent`` and ``score`` of artifacts from
        number ``since`` on.

        Raises:
            BadValue: ``since`` or ``limit`` is not a whole number.
        """
        for name, value in (("since", since), ("limit", limit)):
            if type(value) is not int or value < 0:
                raise BadValue(f"{name} must be an int of at least 0, not {shown(value)}")
        found = self._artifacts[since : since + min(limit, MOST_SCORES)]
        columns: dict[str, Any] = {
            "total": len(self._artifacts),
            "step": [],
            "agent": [],
            "score": [],
        }
        for artifact in found:
            columns["step"].append(artifact.env_time)
            columns["agent"].append(self._label(artifact))
            columns["score"].append(_score(artifact))
        return columns

    def views(self, numbers: Iterable[int], whole: bool, side: int) -> list[dict[str, Any]]:
        """Those of these numbers that there are, as views with their number as ``artifact``.

        Raises:
            BadValue: There are too many, or some are not numbers; or ``side`` is not one.
        """
        numbers = list(numbers)
        if len(numbers) > MOST_VIEWS or not all(type(each) is int for each in numbers):
            raise BadValue(f"numbers must be {MOST_VIEWS} ints at most")
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise BadValue(f"side must be an int from 1 to {MAX_SIDE}, not {shown(side)}")
        views = [
            self._view(number, whole, side)
            for number in numbers
            if 0 <= number < len(self._artifacts)
        ]
        left = LOOK_BYTES
        for each in views:
            if each["look"] is not None:
                left -= len(each["look"].data)
                each["look"] = tuple(each["look"]) if left >= 0 else None
        return views

    def _view(self, number: int, whole: bool, side: int) -> dict[str, Any]:
        artifact = self._artifacts[number]
        try:
            fields = artifact_fields(artifact, self._number_of)
        except BaseException as error:  # a user's class may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            names = ("agent", "creator", "domain", "evaluations", "framings", "features")
            fields = dict.fromkeys((*names, "object_class"))
            fields["class"] = class_name(type(artifact))
        made = view(fields, artifact.obj, whole=whole, side=side)
        seen = own_look(artifact) or made["look"]
        return {"artifact": number, "step": artifact.env_time, **made, "look": seen}

    def _label(self, artifact: Any) -> str:
        number = self._number_of(artifact.creator)
        return str(artifact.creator) if number is None else text_of(number)


def _score(artifact: Any) -> float | None:
    try:
        return score(artifact.evals.values())
    except BaseException as error:  # as above
        if is_ctrl_c(error):
            raise
        return None
