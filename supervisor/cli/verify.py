"""The command verify: whether a simulation repeats itself."""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

import creamas_sc
from creamas_sc.simulation_files.plan import Plan
from supervisor.cli import params
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import emit
from supervisor.cli.params import Class, Json, JsonObject, Whole, at_least
from supervisor.cli.user_code import own_errors, searched

if TYPE_CHECKING:
    from creamas_sc import MultiEnvironment


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
    given = {
        "menv_cls": menv_cls,
        "env_cls": env_cls,
        "mgr_cls": mgr_cls,
        "slave_env_cls": slave_env_cls,
        "slave_mgr_cls": slave_mgr_cls,
    }
    create: dict[str, Any] = {
        name: classes.of(cls, f"--{name.replace('_', '-')}")
        for name, cls in given.items()
        if cls is not None
    }
    if calls != "rounds":  # else as the class has set it
        create["calls"] = calls
    if env_kwargs:
        create["env_kwargs"] = params.json_object(env_kwargs, "--env-kwargs")
    of_slaves = params.json_object(slave_kwargs, "--slave-kwargs") if slave_kwargs else {}
    of_agents = params.json_object(agent_kwargs, "--agent-kwargs") if agent_kwargs else {}
    batches = [params.agent_batch(text, classes, of_agents) for text in agents]
    counts = _counts(slaves)

    def build(number: int, seed: int) -> MultiEnvironment:
        from creamas_sc.simulation_files.building import build_plan

        places = {
            "slave_addrs": [("localhost", 0)] * number,
            "slave_kwargs": [of_slaves] * number,
        }
        return build_plan(Plan({**create, **places}, batches), seed, None)

    with searched(classes.folders), own_errors():
        outcome = creamas_sc.verify(build, steps=steps, seed=seed, slaves=counts)
    emit(asdict(outcome), json, lambda: str(outcome).splitlines())
    return Exit.DONE if outcome.same else Exit.FAILED


def _counts(text: str) -> list[int]:
    """Parse the numbers of slaves."""
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise Failure(f"--slaves {text!r}: expected numbers above 0, say 1,2,4", Exit.USAGE)
    return counts
