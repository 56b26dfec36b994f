"""Makes the simulation of a file in this process."""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from typing import Any, Final

from creamas_sc.core.environment import Environment
from creamas_sc.mp import EnvManager, MultiEnvironment, MultiEnvManager
from creamas_sc.results.record import Record
from creamas_sc.runtime.class_loading import end_script_load, load_subclass
from creamas_sc.simulation_files.connecting import connect
from creamas_sc.simulation_files.names import look_in
from creamas_sc.simulation_files.plan import Plan, spread
from creamas_sc.simulation_files.reading import SimulationFile
from creamas_sc.util import run

_CLASSES: Final = {
    "menv_cls": MultiEnvironment,
    "env_cls": Environment,
    "mgr_cls": MultiEnvManager,
}


def build(
    file: str | os.PathLike[str], seed: int | None = None, nodes: Any = None
) -> MultiEnvironment:
    """Make the simulation that a file describes, with its slaves, agents and connections.

    Steps are the caller's to take. The folders of its classes are added to ``sys.path``.

    Args:
        file: See `creamas_sc.simulation_files`.
        seed: In place of the file's.
        nodes: Other machines for its slaves, as of `MultiEnvironment`.

    Raises:
        BadValue: The file is not valid; the message has the line and the key.
        LoadError, StartError, AgentError: As of `MultiEnvironment`; nothing is left of it.
    """
    end_script_load()
    plan = SimulationFile.read(file).plan()
    return build_plan(plan, plan.create.get("seed") if seed is None else seed,
                      plan.create.get("record"), nodes)  # fmt: skip


def build_plan(
    plan: Plan, seed: int | None, record: Record | None, nodes: Any = None
) -> MultiEnvironment:
    """Make what is planned; see `build`."""
    look_in(plan.folders, str(plan.folder or Path.cwd()))
    given = plan.create
    menv_cls, env_cls, mgr_cls = (
        load_subclass(name, given[name], base) if name in given else base
        for name, base in _CLASSES.items()
    )
    options = {name: given[name] for name in ("restart",) if name in given}
    if record is not None:
        options["record"] = record
    if seed is not None:
        options["seed"] = seed
    if nodes is not None:
        options["nodes"] = nodes
    options |= given.get("env_kwargs", {})
    menv: MultiEnvironment = menv_cls(
        given.get("addr", ("localhost", 0)), env_cls, mgr_cls, **options
    )
    try:
        if "calls" in given:
            menv.calls = given["calls"]
        _populate(menv, plan)
    except BaseException:
        menv.close()
        raise
    return menv


def names_in(plan: Plan) -> list[str]:
    """Names of the classes and functions of a plan, which can be loaded from here on."""
    look_in(plan.folders, str(plan.folder or Path.cwd()))
    names = [value for name, value in plan.create.items() if name.endswith("_cls")]
    record = plan.create.get("record")
    metrics = [] if record is None or record.metrics is None else [record.metrics]
    return [*names, *(batch.cls for batch in plan.agents), *metrics]


def _populate(menv: MultiEnvironment, plan: Plan) -> None:
    given: Any = plan.create
    place = {"place": given["place"]} if "place" in given else {}
    with chdir(plan.folder or "."):  # where slaves begin
        run(
            menv.spawn_slaves(
                given["slave_addrs"],
                given.get("slave_env_cls", Environment),
                given.get("slave_mgr_cls", EnvManager),
                given.get("slave_kwargs"),
                **place,
            )
        )
    for batch in plan.agents:
        for manager, number in spread(batch.number, menv.addrs):
            run(menv.spawn_n(batch.cls, number, addr=manager, **batch.arguments))
    if plan.connections is not None:
        connect(menv, plan.connections)
