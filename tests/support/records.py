"""Records for tests of what reads them, without a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creamas_sc.results.columns import pack, to_json
from creamas_sc.results.describing import encode_object
from creamas_sc.results.run_file import Batch, RunFile
from creamas_sc.wire.codec import Codec

Steps = Sequence[Mapping[str, Any]]


def write_run(
    folder: Path,
    agents: Steps = (),
    metrics: Sequence[Mapping[str, Any]] = (),
    objects: Sequence[Any] = (),
    parameters: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run; the path of its file.

    Args:
        agents: What was observed in each step: a column for each name.
        metrics: Of each step.
        objects: Of artifacts of the first step, of agent 0.
        parameters: Of the run.
    """
    run: dict[str, Any] = {
        "class": "m:C",
        "seed": "1",
        "parameters": to_json(parameters or {}),
        "setup": "{}",
    }
    run |= {"versions": "{}", "machine": "{}", "began": 0.0}
    file = RunFile.create(str(folder), run)
    for step in range(1, 1 + max(len(agents), len(metrics), bool(objects))):
        rows: dict[str, list[Any]] = {"steps": [(step, step, 0.0, 0.5, 2, 0, None, None, None)]}
        if step == 1:
            rows["artifacts"] = [_artifact(*each) for each in enumerate(objects)]
        if step <= len(metrics):
            rows["metrics"] = [(step, name, value) for name, value in metrics[step - 1].items()]
        if step <= len(agents):
            rows["numbers"], rows["agents"] = [], []
            for at, (name, values) in enumerate(agents[step - 1].items()):
                rows["numbers"].append((step * 100 + at, step, to_json([[0, len(values)]])))
                rows["agents"].append((step, name, step * 100 + at, *pack(values)))
        file.write(Batch(step, rows, {}))
    file.close()
    return file.path


def _artifact(index: int, value: Any) -> tuple[Any, ...]:
    data = encode_object(Codec(), value)
    labels = ('{"0":0.5}', '{"0":null}', "{}")
    return (index, 1, 0, "0", "m:A", "d", *labels, type(value).__name__, data, None)
