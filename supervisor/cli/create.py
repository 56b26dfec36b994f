"""The verb create: a simulation, its slaves and agents, all of it or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from creamas_sc.errors import BadValue, CreamasError, DeadlineExceeded
from creamas_sc.restarts.policy import RestartPolicy
from supervisor.cli.daemon_connection import checked_name, in_time, linked, patience
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import count, emit, note
from supervisor.cli.params import Daemon, Json, Seconds, at_least
from supervisor.cli.values import AgentBatch, Classes, address, herd, json_object, spread

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient

__all__ = ["create"]

_MASTER = Group.create_ordered("Options of the master environment")
_SLAVES = Group.create_ordered("Options of slaves")
_AGENTS = Group.create_ordered("Options of agents")
_RESTARTS = Group.create_ordered("What the loss of a slave leads to")


def _option(group: Group, name: str, metavar: str, help: str) -> Parameter:
    return Parameter(name=name, group=group, metavar=metavar, help=help)


def create(
    name: Annotated[str, Parameter(help="Letters, digits, '.', '_' and '-'.")],
    /,
    *,
    slaves: Annotated[
        int | None,
        Parameter(group=_SLAVES, validator=at_least(1), help="How many, on free ports."),
    ] = None,
    slave: Annotated[
        list[str] | None,
        _option(_SLAVES, "--slave", "HOST:PORT", "Where one listens; once for each slave."),
    ] = None,
    slave_env_cls: Annotated[
        str | None, _option(_SLAVES, "--slave-env-cls", "CLASS", "Their environments' class.")
    ] = None,
    slave_mgr_cls: Annotated[
        str | None, _option(_SLAVES, "--slave-mgr-cls", "CLASS", "Their managers' class.")
    ] = None,
    slave_kwargs: Annotated[
        list[str] | None,
        _option(
            _SLAVES,
            "--slave-kwargs",
            "JSON",
            "For their environments' __init__: once for all, or once for each slave.",
        ),
    ] = None,
    agents: Annotated[
        list[str] | None,
        _option(
            _AGENTS,
            "--agents",
            "CLASS=COUNT",
            "Spread evenly over the slaves; once for each class of agents.",
        ),
    ] = None,
    agent_kwargs: Annotated[
        str | None, _option(_AGENTS, "--agent-kwargs", "JSON", "For the __init__ of all agents.")
    ] = None,
    menv_cls: Annotated[
        str | None, _option(_MASTER, "--menv-cls", "CLASS", "A subclass of MultiEnvironment.")
    ] = None,
    env_cls: Annotated[
        str | None, _option(_MASTER, "--env-cls", "CLASS", "Its environment's class.")
    ] = None,
    mgr_cls: Annotated[
        str | None, _option(_MASTER, "--mgr-cls", "CLASS", "Its manager's class.")
    ] = None,
    env_kwargs: Annotated[
        str | None, _option(_MASTER, "--env-kwargs", "JSON", "For its environment's __init__.")
    ] = None,
    addr: Annotated[
        str | None,
        _option(
            _MASTER, "--addr", "HOST:PORT", "Where it listens; localhost and a free port without."
        ),
    ] = None,
    seed: Annotated[
        int | None, Parameter(group=_MASTER, help="Makes the agents' random numbers repeatable.")
    ] = None,
    restart: Annotated[
        Literal["temporary", "transient", "permanent", "all"],
        _option(
            _RESTARTS,
            "--restart",
            "MODE",
            "If a slave is lost: go on without it (temporary), start it again unless it ended in "
            "order (transient), or however it ended (permanent), or end (all).",
        ),
    ] = "temporary",
    restarts: Annotated[
        int | None,
        Parameter(
            name="--restarts",
            group=_RESTARTS,
            validator=at_least(0),
            help="How many, before the next loss ends the simulation; 3 without.",
        ),
    ] = None,
    within: Annotated[
        Seconds, Parameter(group=_RESTARTS, help="In so many seconds; 60 without.")
    ] = None,
    timeout: Annotated[
        Seconds, Parameter(help="Seconds until all is ready; else create_timeout, 30.")
    ] = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Create a simulation, with slaves and agents.

    It lives until close, whoever comes and goes. A class is given as
    package.module:Class, looked for in the current folder too, or as
    file.py:Class. If anything fails, nothing of the simulation is left.

    For example:

        creamas-supervisor create novelty --slaves 2 --agents painters.py:Painter=24
        creamas-supervisor create two --slave localhost:5556 --slave localhost:5557
        creamas-supervisor create own --menv-cls society:Society --seed 1
    """
    checked_name(name, "simulation")
    classes = Classes()
    herds = [herd(text, classes) for text in agents or ()]
    places = _places(slaves, slave, herds)
    policy = _policy(restart, restarts, within)
    arguments: dict[str, Any] = {
        "menv_cls": menv_cls and classes.name(menv_cls, "--menv-cls"),
        "addr": addr and address(addr, "--addr"),
        "env_cls": env_cls and classes.name(env_cls, "--env-cls"),
        "mgr_cls": mgr_cls and classes.name(mgr_cls, "--mgr-cls"),
        "env_kwargs": env_kwargs and json_object(env_kwargs, "--env-kwargs"),
        "slave_addrs": places or None,
        "slave_env_cls": slave_env_cls and classes.name(slave_env_cls, "--slave-env-cls"),
        "slave_mgr_cls": slave_mgr_cls and classes.name(slave_mgr_cls, "--slave-mgr-cls"),
        "slave_kwargs": _for_each(slave_kwargs, len(places)),
    }
    given = {key: value for key, value in arguments.items() if value is not None}
    agents_get = json_object(agent_kwargs, "--agent-kwargs") if agent_kwargs else {}
    with linked(daemon) as (client, settings), _import_path(classes.folders):
        seconds = settings.create_timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        with patience(client, seconds), in_time(deadline):
            told = client.create(name, seed=seed, restart=policy, timeout=seconds, **given)
        with _all_or_nothing(client, name):
            spawned = _spawn(client, name, herds, agents_get, deadline)
    told = {**told, "agents": spawned}
    emit(told, json, lambda: [_description(told)])
    return Exit.DONE


def _places(
    slaves: int | None, slave: Sequence[str] | None, herds: Sequence[AgentBatch]
) -> list[tuple[str, int]]:
    if slaves is not None and slave:
        raise Failure("give either --slaves or each --slave, not both", Exit.USAGE)
    places = [address(text, "--slave") for text in slave or ()] or [("localhost", 0)] * (
        slaves or 0
    )
    if herds and not places:
        raise Failure("--agents need slaves to live in: add --slaves 2, say", Exit.USAGE)
    return places


def _policy(mode: str, restarts: int | None, within: float | None) -> str | RestartPolicy:
    given = {"restarts": restarts, "seconds": within}
    limits: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if not limits:
        return mode
    try:
        policy = RestartPolicy(mode, **limits)
    except BadValue as error:
        raise Failure(f"--restarts and --within: {error}", Exit.USAGE) from None
    if not policy.restarts_slaves:
        raise Failure(
            "--restarts and --within are for --restart transient and --restart permanent",
            Exit.USAGE,
        )
    return policy


def _for_each(texts: Sequence[str] | None, number: int) -> list[dict[str, Any]] | None:
    if not texts:
        return None
    told = [json_object(text, "--slave-kwargs") for text in texts]
    if len(told) == 1:
        return told * number
    if len(told) != number:
        raise Failure(
            f"--slave-kwargs is given {len(told)} times for {count(number, 'slave')}: give it "
            "once, for all of them, or once for each",
            Exit.USAGE,
        )
    return told


@contextmanager
def _import_path(folders: Sequence[str]) -> Iterator[None]:
    """Let the simulation look for modules in these folders too, before any other place."""
    before = os.environ.get("PYTHONPATH")
    if folders:
        os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [before])])
    try:
        yield
    finally:
        if folders and before is None:
            del os.environ["PYTHONPATH"]
        elif before is not None:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _all_or_nothing(client: SyncClient, name: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        told = " ".join(str(error).split()) or type(error).__name__
        try:
            client.kill(name, why=f"its creation was given up: {told}")
        except CreamasError as error:  # it has ended, or the daemon has
            note(f"{name} could not be taken down again: {error}")
        raise


def _spawn(
    client: SyncClient,
    name: str,
    herds: Sequence[AgentBatch],
    kwargs: dict[str, Any],
    deadline: float,
) -> int:
    """Make the agents; how many."""
    if not herds:
        return 0
    with client.attach(name) as sim:
        managers = sim.get_addrs()
        for each in herds:
            for place, number in spread(each.number, managers):
                sim.timeout = deadline - time.monotonic()
                if sim.timeout <= 0:
                    raise DeadlineExceeded(f"the agents of {name} were not ready in time")
                sim.spawn_n(each.cls, number, addr=place, **kwargs)
    return sum(each.number for each in herds)


def _description(told: dict[str, Any]) -> str:
    slaves, agents = count(len(told["addrs"]), "slave"), count(told["agents"], "agent")
    return f"{told['name']} is there, with {agents} in {slaves} (pid {told['pid']})"
