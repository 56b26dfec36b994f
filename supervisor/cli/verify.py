"""The command verify: whether a simulation repeats itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

import creamas_sc
from creamas_sc.errors import AgentErrors, CreamasError
from creamas_sc.foreign import summary_of
from creamas_sc.runtime.class_loading import load_subclass
from creamas_sc.runtime.paths import others_may_write
from supervisor.cli import params
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import emit, note
from supervisor.cli.params import Class, Json, JsonObject, Whole, at_least

if TYPE_CHECKING:
    from creamas_sc import MultiEnvironment

_ENVIRONMENT = "creamas_sc:Environment"


def verify(
    *,
    agents: Annotated[list[str], Parameter(metavar="CLASS=COUNT")],
    agent_kwargs: JsonObject = None,
    slaves: Annotated[str, Parameter(metavar="COUNTS")] = "1,2,4",
    steps: Annotated[int, Whole, at_least(1)] = 10,
    seed: Annotated[int, Whole, at_least(0, inf)] = 1,
    calls: Literal["free", "rounds"] = "rounds",
    slave_env_cls: Class = None,
    slave_mgr_cls: Class = None,
    slave_kwargs: JsonObject = None,
    menv_cls: Class = None,
    env_cls: Class = None,
    mgr_cls: Class = None,
    env_kwargs: JsonObject = None,
    json: Json = False,
) -> int:
    """Check that a simulation repeats itself.

    It runs several times with one seed, twice with the first number of slaves
    and once with each other. After each step the agents' states, results and
    artifacts are compared. The first agent that differs is shown, with what
    differs and what makes it differ, as far as there is evidence. No daemon is
    needed. The exit code is 0 if all runs are the same, and 1 if they differ.

    For example:

        creamas-supervisor verify --agents painters.py:Painter=24
        creamas-supervisor verify --slaves 2,8 --steps 50 --agents a.py:Agent=100

    Args:
        agents: Agents, spread evenly over the slaves; give it once for each class of agents.
        agent_kwargs: For the __init__ of all agents.
        slaves: How many slaves the runs have. Default: 1,2,4.
        steps: How many steps to compare. Default: 10.
        seed: Of all runs. Default: 1.
        calls: How calls between agents go in a step, as for create: only rounds
            promise the same at any number of slaves. Default: rounds.
        slave_env_cls: The class of the slaves' environments.
        slave_mgr_cls: The class of their managers.
        slave_kwargs: For the environments' __init__.
        menv_cls: A subclass of MultiEnvironment.
        env_cls: The class of its environment.
        mgr_cls: The class of its manager.
        env_kwargs: For its environment's __init__.
    """
    classes = params.Classes()
    batches = [params.agent_batch(text, classes) for text in agents]
    names = {
        "--slave-env-cls": slave_env_cls or _ENVIRONMENT,
        "--slave-mgr-cls": slave_mgr_cls or "creamas_sc.mp:EnvManager",
        "--menv-cls": menv_cls or "creamas_sc.mp:MultiEnvironment",
        "--env-cls": env_cls or _ENVIRONMENT,
        "--mgr-cls": mgr_cls or "creamas_sc.mp:MultiEnvManager",
    }
    names = {option: classes.name(name, option) for option, name in names.items()}
    own = params.json_object(env_kwargs, "--env-kwargs") if env_kwargs else {}
    of_slaves = params.json_object(slave_kwargs, "--slave-kwargs") if slave_kwargs else {}
    of_agents = params.json_object(agent_kwargs, "--agent-kwargs") if agent_kwargs else {}
    counts = _counts(slaves)

    def build(number: int, seed: int) -> MultiEnvironment:
        kind, master, manager = (
            load_subclass(option, names[option], base)
            for option, base in (
                ("--menv-cls", creamas_sc.MultiEnvironment),
                ("--env-cls", creamas_sc.Environment),
                ("--mgr-cls", creamas_sc.MultiEnvManager),
            )
        )
        menv: MultiEnvironment = kind(("localhost", 0), master, manager, seed=seed, **own)
        if calls != "rounds":  # else as the class has set it
            menv.calls = calls
        creamas_sc.run(
            menv.spawn_slaves(
                [("localhost", 0)] * number,
                names["--slave-env-cls"],
                names["--slave-mgr-cls"],
                [of_slaves] * number,
            )
        )
        _spawn(menv, batches, of_agents)
        return menv

    with _searched(classes.folders), _own_errors():
        outcome = creamas_sc.verify(build, steps=steps, seed=seed, slaves=counts)
    emit(asdict(outcome), json, lambda: str(outcome).splitlines())
    return Exit.DONE if outcome.same else Exit.FAILED


def _spawn(
    menv: MultiEnvironment, batches: Sequence[params.AgentBatch], kwargs: Mapping[str, Any]
) -> None:
    for batch in batches:
        for manager, number in params.spread(batch.number, menv.addrs):
            creamas_sc.run(menv.spawn_n(batch.cls, number, addr=manager, **kwargs))


def _counts(text: str) -> list[int]:
    """Parse the numbers of slaves."""
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise Failure(f"--slaves {text!r}: expected numbers above 0, say 1,2,4", Exit.USAGE)
    return counts


@contextmanager
def _own_errors() -> Iterator[None]:
    """Say in a line what the user's classes have raised in this process."""
    try:
        yield
    except (CreamasError, AgentErrors, OSError):
        raise
    except Exception as error:
        raise Failure(f"the simulation's own code failed: {summary_of(error)}") from error


@contextmanager
def _searched(folders: Sequence[str]) -> Iterator[None]:
    """Look for modules in these folders first, and in the working folder last, where create does.

    The slaves have the same import path.
    """
    before, here = sys.path[:], os.getcwd()
    sys.path[:0] = folders
    if others_may_write(here):
        note(f"{here} is not searched for modules, since other users may write to it")
    elif here not in sys.path:
        sys.path.append(here)
    try:
        yield
    finally:
        sys.path[:] = before
