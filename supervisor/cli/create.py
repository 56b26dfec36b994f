"""The command create: a simulation with its slaves and agents, or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from creamas_sc.errors import BadValue, CreamasError, DeadlineExceeded
from creamas_sc.nodes import Nodes
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.results.record import Record
from creamas_sc.simulation_files.plan import Batch, Plan, spread
from supervisor.cli import params
from supervisor.cli.daemon_connection import checked_name, connected, extra_time, start_deadline
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.output import count, emit, note
from supervisor.cli.params import Class, Daemon, Json, JsonObject, Seconds, Whole, at_least

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient, SyncSimulation

_MASTER = Parameter(group=Group.create_ordered("Options of the master environment"))
_SLAVES = Parameter(group=Group.create_ordered("Options of slaves"))
_AGENTS = Parameter(group=Group.create_ordered("Options of agents"))
_RECORD = Parameter(group=Group.create_ordered("Options of the record"))
_RESTARTS = Parameter(group=Group.create_ordered("When a slave is lost"))

_BESIDE_A_FILE = ("name", "file", "timeout", "daemon", "json")

Modes = Literal["temporary", "transient", "permanent", "all"]


def create(
    name: str,
    file: Path | None = None,
    /,
    *,
    slaves: Annotated[int | None, _SLAVES, Whole, at_least(1)] = None,
    slave: Annotated[list[str] | None, _SLAVES, Parameter(metavar="HOST:PORT")] = None,
    place: Annotated[list[str] | None, _SLAVES, Parameter(metavar="PLACE")] = None,
    nodes: Annotated[int | None, _SLAVES, Whole, at_least(1)] = None,
    slave_env_cls: Annotated[Class, _SLAVES] = None,
    slave_mgr_cls: Annotated[Class, _SLAVES] = None,
    slave_kwargs: Annotated[list[str] | None, _SLAVES, Parameter(metavar="JSON")] = None,
    agents: Annotated[list[str] | None, _AGENTS, Parameter(metavar="CLASS=COUNT")] = None,
    agent_kwargs: Annotated[JsonObject, _AGENTS] = None,
    menv_cls: Annotated[Class, _MASTER] = None,
    env_cls: Annotated[Class, _MASTER] = None,
    mgr_cls: Annotated[Class, _MASTER] = None,
    env_kwargs: Annotated[JsonObject, _MASTER] = None,
    addr: Annotated[str | None, _MASTER, Parameter(metavar="HOST:PORT")] = None,
    seed: Annotated[int | None, _MASTER, Whole, at_least(0, inf)] = None,
    calls: Annotated[Literal["free", "rounds"] | None, _MASTER] = None,
    record: Annotated[Path | None, _RECORD, Parameter(metavar="DIR")] = None,
    checkpoint_every: Annotated[int | None, _RECORD, Whole, at_least(1)] = None,
    restart: Annotated[Modes | None, _RESTARTS, Parameter(metavar="MODE")] = None,
    restarts: Annotated[int | None, _RESTARTS, Whole, at_least(0)] = None,
    within: Annotated[Seconds, _RESTARTS] = None,
    timeout: Seconds = None,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Create a simulation, with slaves and agents.

    It lives until it is closed. What is in it is said by options, or by FILE,
    a TOML file, beside which only --timeout, --daemon and --json may be given.
    A class is given as package.module:Class, which may be in the current
    folder, or as file.py:Class. If anything fails, nothing of the simulation
    is left.

    When a slave is lost, the simulation goes on without it (temporary), or
    starts it again unless it ended normally (transient), or starts it again
    however it ended (permanent), or ends (all).

    For example:

        creamas-supervisor create novelty --slaves 2 --agents painters.py:Painter=24
        creamas-supervisor create two --slave localhost:5556 --slave localhost:5557
        creamas-supervisor create own --menv-cls society:Society --seed 1
        creamas-supervisor create third simulation.toml
        creamas-supervisor create far --slaves 8 --place nodes --agents painters.py:Painter=96

    Args:
        name: The new simulation's name: letters, digits, '.', '_' and '-'.
        file: Its keys: python -c 'help("creamas_sc.simulation_files")'
        slaves: How many slaves, on free ports.
        slave: Where one slave listens; give it once for each slave.
        place: On which machine slaves run: here, nodes (each on the node with the most free
            cores), or the name of a node; give it once, or once for each slave.
        nodes: How many nodes must have joined the daemon before; they are waited for.
        slave_env_cls: The class of their environments.
        slave_mgr_cls: The class of their managers.
        slave_kwargs: For their environments' __init__; give it once, or once for each slave.
        agents: Agents, spread evenly over the slaves; give it once for each class of agents.
        agent_kwargs: For the __init__ of all agents.
        menv_cls: A subclass of MultiEnvironment.
        env_cls: The class of its environment.
        mgr_cls: The class of its manager.
        env_kwargs: For its environment's __init__.
        addr: Where it listens. Default: localhost, on a free port.
        seed: Makes the agents' random numbers repeatable. Default: drawn; inspect
            and close show it.
        calls: How calls between agents go in a step: so that a seed gives the same at
            any number of slaves (rounds), or each at once (free). Default: rounds.
        record: A folder for a record of each step, which export and plot read.
        checkpoint_every: With --record: after each so many steps, write a checkpoint, from which
            resume goes on.
        restart: What to do; see above. Default: temporary.
        restarts: How many restarts to allow; one more ends the simulation. Default: 3.
        within: The time in which restarts are counted. Default: 60.
        timeout: Seconds until everything is ready. Default: create_timeout, 30.
    """
    given = {key: value for key, value in locals().items() if value is not None}
    options = {key: value for key, value in given.items() if key not in _BESIDE_A_FILE}
    checked_name(name, "simulation")
    plan = _of_options(options) if file is None else _of_file(file, options)
    with connected(daemon) as (client, settings), import_path(plan.folders):
        seconds = settings.create_timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        with extra_time(client, seconds), start_deadline(deadline), chdir(plan.folder or "."):
            created = client.create(name, timeout=seconds, **plan.create)
        with killed_on_error(client, name):
            _populate(client, name, plan, deadline)
    number = sum(batch.number for batch in plan.agents)
    agents_text, slaves_text = count(number, "agent"), count(len(created["addrs"]), "slave")
    line = f"created {name}: {agents_text} in {slaves_text} (pid {created['pid']})"
    if plan.steps is not None:
        line += f", which takes {count(plan.steps, 'step')}"
    emit({**created, "agents": number}, json, lambda: [line])
    return Exit.DONE


def _of_file(file: Path, options: Mapping[str, Any]) -> Plan:
    if options:
        text = f"--{next(iter(options)).replace('_', '-')} does not go with a file: put it into"
        raise Failure(f"{text} {file}", Exit.USAGE)
    from creamas_sc.simulation_files.reading import SimulationFile

    try:
        return SimulationFile.read(file).plan()
    except BadValue as error:
        raise Failure(str(error), Exit.USAGE) from None


def _of_options(options: Mapping[str, Any]) -> Plan:
    classes = params.Classes()
    create: dict[str, Any] = {}
    for name in ("menv_cls", "env_cls", "mgr_cls", "slave_env_cls", "slave_mgr_cls"):
        if name in options:
            create[name] = classes.of(options[name], f"--{name.replace('_', '-')}")
    if "addr" in options:
        create["addr"] = params.address(options["addr"], "--addr")
    if "env_kwargs" in options:
        create["env_kwargs"] = params.json_object(options["env_kwargs"], "--env-kwargs")
    create |= {name: options[name] for name in ("seed", "calls", "record") if name in options}
    if "checkpoint_every" in options:
        if "record" not in options:
            raise Failure("--checkpoint-every goes with --record", Exit.USAGE)
        every = options["checkpoint_every"]
        create["record"] = Record(options["record"], checkpoint_every=every)
    limits = {name: options[name] for name in ("restarts", "within") if name in options}
    if limits or "restart" in options:
        create["restart"] = _policy(options.get("restart", "temporary"), **limits)
    text = options.get("agent_kwargs")
    arguments = {} if text is None else params.json_object(text, "--agent-kwargs")
    agents = [params.agent_batch(each, classes, arguments) for each in options.get("agents", ())]
    host = create.get("addr", ("localhost", 0))[0]
    if places := _places(options.get("slaves"), options.get("slave"), agents, host):
        create["slave_addrs"] = places
    if "place" in options:
        create["place"] = _place(options["place"], len(places))
    if "nodes" in options:
        create["nodes"] = Nodes(count=options["nodes"])
    if "slave_kwargs" in options:
        create["slave_kwargs"] = _for_each(options["slave_kwargs"], len(places))
    if agents:
        create["agent_classes"] = [batch.cls for batch in agents]
    return Plan(create, agents, folders=classes.folders)


def _places(
    slaves: int | None, slave: Sequence[str] | None, batches: Sequence[Batch], host: str
) -> list[tuple[str, int]]:
    if slaves is not None and slave:
        raise Failure("give either --slaves or each --slave, not both", Exit.USAGE)
    places = [params.address(text, "--slave") for text in slave or ()]
    places = places or [(host, 0)] * (slaves or 0)
    if batches and not places:
        raise Failure("--agents need slaves to live in: add --slaves 2, say", Exit.USAGE)
    return places


def _place(place: Sequence[str], slaves: int) -> str | list[str]:
    if len(place) == 1:
        return place[0]
    if len(place) != slaves:
        raise Failure(
            f"--place is given {len(place)} times for {count(slaves, 'slave')}: give it once for "
            "all slaves, or once for each",
            Exit.USAGE,
        )
    return list(place)


def _policy(
    mode: str, restarts: int | None = None, within: float | None = None
) -> str | RestartPolicy:
    given = {"restarts": restarts, "seconds": within}
    limits: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if not limits:
        return mode
    try:
        policy = RestartPolicy(mode, **limits)
    except BadValue as error:
        raise Failure(f"--restarts and --within: {error}", Exit.USAGE) from None
    if not policy.restarts_slaves:
        text = "--restarts and --within go with --restart transient or --restart permanent"
        raise Failure(text, Exit.USAGE)
    return policy


def _for_each(texts: Sequence[str], slaves: int) -> list[dict[str, Any]]:
    kwargs = [params.json_object(text, "--slave-kwargs") for text in texts]
    if len(kwargs) == 1:
        return kwargs * slaves
    if len(kwargs) != slaves:
        raise Failure(
            f"--slave-kwargs is given {len(kwargs)} times for {count(slaves, 'slave')}: give it "
            "once for all slaves, or once for each",
            Exit.USAGE,
        )
    return kwargs


@contextmanager
def import_path(folders: Sequence[str]) -> Iterator[None]:
    """Let the simulation look for modules in these folders before any other place."""
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
def killed_on_error(client: SyncClient, name: str) -> Iterator[None]:
    """Leave nothing of the simulation if the block raises."""
    try:
        yield
    except BaseException as error:
        why = " ".join(str(error).split()) or type(error).__name__
        try:
            client.kill(name, why=f"creating it failed: {why}")
        except CreamasError as failure:  # it has ended, or the daemon has
            note(f"{name} could not be removed again: {failure}")
        raise


def _populate(client: SyncClient, name: str, plan: Plan, deadline: float) -> None:
    """Spawn the agents, connect them, and have the steps begin."""
    if not plan.agents and plan.steps is None:
        return
    with client.attach(name) as sim:
        managers = sim.get_addrs()
        for batch in plan.agents:
            for manager, number in spread(batch.number, managers):
                _limit(sim, deadline)
                sim.spawn_n(batch.cls, number, addr=manager, **batch.arguments)
        for cls in dict.fromkeys(batch.cls for batch in plan.agents):
            missing = sim.call_agent(managers[0], "missing_act", (cls,), {})
            if missing is not None:
                note(missing)
        if plan.connections is not None:
            from creamas_sc.simulation_files.connecting import connect

            _limit(sim, deadline)
            connect(sim, plan.connections)
        if plan.steps is not None:
            sim.start_steps(plan.steps)


def _limit(sim: SyncSimulation, deadline: float) -> None:
    """Have the next call fail if it is not answered by the deadline."""
    sim.timeout = deadline - time.monotonic()
    if sim.timeout <= 0:
        raise DeadlineExceeded(f"the agents of {sim.name} were not ready in time")
