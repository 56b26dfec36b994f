"""Reads files of studies: simulations that run with combinations of parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from creamas_sc.errors import CreamasError
from creamas_sc.results.columns import scalar
from creamas_sc.simulation_files.reading import SimulationFile
from creamas_sc.simulation_files.source import Source

_Whole = Annotated[int, Meta(ge=1)]


class _Study(Struct, forbid_unknown_fields=True, kw_only=True):
    folder: str
    steps: _Whole
    parameters: dict[str, Any]
    simulation: str | None = None
    replicates: _Whole = 10
    seed: Annotated[int, Meta(ge=0)] = 1


class Study(NamedTuple):
    """What a study runs.

    Attributes:
        simulation: What each run is, but for the parameters.
        folder: Where the ledger and the records go.
        parameters: Lists of values, of which all combinations are run.
        replicates, seed, steps: As of `Experiment`.
    """

    simulation: SimulationFile
    folder: Path
    parameters: dict[str, list[Any]]
    replicates: int
    seed: int
    steps: int

    def options(self) -> dict[str, Any]:
        """The arguments of `Experiment` beside the parameters."""
        names = ("folder", "replicates", "seed", "steps")
        return {name: getattr(self, name) for name in names}


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read a file.

    Raises:
        BadValue: It is not valid; the message has the line and the key.
    """
    source = Source.read(Path(path))
    if "study" not in source.document:
        raise source.refusal((), "there is no table [study] in it")
    found = source.convert(source.document["study"], _Study, ("study",))
    simulation = SimulationFile(source)
    if found.simulation is not None:
        unknown = [key for key in source.document if key != "study"]
        if unknown:
            why = "beside study.simulation there are no other keys: they go into that file"
            raise source.refusal((unknown[0],), why)
        simulation = SimulationFile.read(source.path.parent / found.simulation)
    working = simulation.plan({}).folder or source.path.parent
    parameters: dict[str, list[Any]] = {}
    for key, values in _flat(found.parameters):
        name = ".".join(key)
        try:
            if not isinstance(values, list) or not values:
                raise ValueError("must be a list of values")
            for value in values:
                for each in value if isinstance(value, list) else [value]:
                    scalar(each)  # as runs keep it
                simulation.plan({name: value})
        except (CreamasError, TypeError, ValueError) as error:
            raise source.refusal(("study", "parameters", *key), str(error)) from None
        parameters[name] = values
    folder = working / found.folder
    return Study(simulation, folder, parameters, found.replicates, found.seed, found.steps)


def _flat(parameters: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from (((name, *inner), values) for inner, values in _flat(value))
        else:
            yield (name,), value
