"""The runs of an experiment: parameters combined, with a key and a seed for each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

from creamas_sc.core.randomness import DRAWN_BITS
from creamas_sc.errors import BadValue
from creamas_sc.foreign import shown
from creamas_sc.results.columns import scalar

# Other columns of `Experiment.runs`.
_TAKEN: Final = frozenset(
    {"key", "replicate", "seed", "state", "pid", "began", "seconds", "error", "traceback"}
)


class Run(NamedTuple):
    """One run.

    Attributes:
        key: Differs from all others' of the experiment.
        parameters: As ``build`` gets them.
        replicate: Its number among those with the same parameters, from 0 on.
    """

    key: str
    parameters: dict[str, Any]
    replicate: int
    seed: int


def design(build: str, parameters: Any, replicates: int, seed: int) -> list[Run]:
    """The runs of an experiment, in order.

    Args:
        build: The name of what builds a run's simulation.
        parameters: As of `Experiment`.

    Raises:
        BadValue: ``parameters`` are none, or no parameters.
    """
    runs: dict[str, Run] = {}
    for row in rows_of(parameters):
        for replicate in range(replicates):
            key = _digest([build, row, replicate]).hex()[:16]
            drawn = int.from_bytes(_digest([seed, key])[:8], "big") >> (64 - DRAWN_BITS)
            runs[key] = Run(key, row, replicate, drawn)
    return list(runs.values())


def rows_of(parameters: Any) -> list[dict[str, Any]]:
    """The combinations of parameters, each once.

    Raises:
        BadValue: There are none, or they are not as `Experiment` takes them.
    """
    if isinstance(parameters, Mapping):
        lists = {name: _values(name, values) for name, values in parameters.items()}
        rows: Iterable[Any] = (
            dict(zip(lists, values, strict=True)) for values in product(*lists.values())
        )
    elif hasattr(parameters, "to_dicts"):  # of polars
        rows = parameters.to_dicts()
    elif hasattr(parameters, "to_dict"):  # of pandas
        rows = parameters.to_dict("records")
    elif isinstance(parameters, tuple) and len(parameters) == 2:
        names, values = parameters
        rows = (dict(zip(names, row, strict=True)) for row in values)
    else:
        rows = parameters
    try:
        found = [{str(name): _plain(name, value) for name, value in row.items()} for row in rows]
    except BadValue:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise BadValue(
            "parameters must be a dict of lists to combine, rows of a table (dicts, or a data "
            f"frame), or a pair of names and rows of values, not {shown(parameters)}"
        ) from error
    if not found:
        raise BadValue("parameters: there are no rows, so there is nothing to run")
    if any(row.keys() != found[0].keys() for row in found):
        raise BadValue("parameters: all rows must have the same names")
    for name in found[0]:
        if name in _TAKEN:
            raise BadValue(
                f"parameters: {name!r} is a column of the ledger already: use another name"
            )
    return [json.loads(row) for row in dict.fromkeys(map(_canonical, found))]


def _values(name: Any, values: Any) -> Sequence[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise BadValue(f"parameters: {name!r} must be a list of values, not {shown(values)}")
    return list(values)


def _plain(name: Any, value: Any) -> Any:
    """A value as JSON has it, in which form it is kept and given to each run."""
    try:
        if isinstance(value, (list, tuple)):
            return [scalar(each) for each in value]
        return scalar(value)
    except TypeError as error:
        raise BadValue(f"parameters: {name!r} {error}, nor a list of these") from None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(value: Any) -> bytes:
    return hashlib.sha256(_canonical(value).encode()).digest()
