"""A host's process: it runs one simulation's multi-environment for as long as the simulation lives.

It inherits one descriptor, a socket on which its supervisor hands it connections: first its own
connection to the supervisor, then one for each client. Two nurseries, one within the other: the
outer one has only the connection to the supervisor, which is needed until the last slave has
stopped; the inner one has everything else. The main task waits for the request to shut down,
carries it out, and leaves the inner nursery first.
"""

from __future__ import annotations

import logging
import signal
import socket
from pathlib import Path
from typing import Any

import trio

from creamas_sc.core.environment import Environment
from creamas_sc.core.randomness import check_seed, draw_seed, drawn_seed, seed_process
from creamas_sc.errors import CreamasError, StartError
from creamas_sc.mp import MultiEnvironment
from creamas_sc.mp.managers import Manager
from creamas_sc.mp.resuming import Resumption
from creamas_sc.mp.slave_main import Control, name_process
from creamas_sc.mp.stacks import answering_for
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.results.record import Record
from creamas_sc.rpc.fd_passing import CONTROL, receive
from creamas_sc.runtime.class_loading import load_subclass
from creamas_sc.runtime.code_versions import load_from
from creamas_sc.runtime.debugging import refuse_breakpoints
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.log_setup import open_actor_log
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.runtime.timeouts import GRACE_SECONDS
from creamas_sc.simulation_host.client_server import ClientServer
from creamas_sc.simulation_host.hosted_simulation import HostedSimulation
from creamas_sc.simulation_host.shutdown import fit_to_travel
from creamas_sc.simulation_host.supervisor_connection import HostConnection
from creamas_sc.supervisor_client.connection import supervisor_factory
from creamas_sc.supervisor_client.spec import HostSpec, pack, unpack

log = logging.getLogger(__name__)

# Once everything is closed: for the last answers, and for the user's tasks that do not end.
ANSWER_SECONDS = 1.0
EXIT_SECONDS = 2
# Slaves have indexes from 0 on; random generators depend on it.
HOST_INDEX = -1


async def main(spec: bytes, control: Control) -> bytes:
    """The entry of a host's process: run a simulation until it is closed.

    Returns:
        The packed `StopReport` of the slaves.

    Raises:
        StartError, LoadError, Exception: The simulation did not come up; nothing of it is left.
        SlaveLost: A slave's loss has ended it.
    """
    order = HostSpec.decode(spec)
    hosted: list[HostedSimulation] = []

    def about() -> dict[str, Any]:
        return hosted[0].about() if hosted else {"address": None}

    with answering_for(about):
        return await _run(order, control, hosted)


async def _run(order: HostSpec, control: Control, hosted: list[HostedSimulation]) -> bytes:
    """As `main`; ``hosted`` gets the simulation once there is one."""
    name_process(f"creamas: {order.name} (host)")
    open_actor_log(role="host")
    refuse_breakpoints()
    check_seed(order.seed)
    seed = draw_seed() if order.seed is None else order.seed
    seed_process(seed, HOST_INDEX)

    def describe() -> dict[str, Any]:
        return hosted[0].describe() if hosted else {}

    (descriptor,) = control.descriptors
    with trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)) as handovers:
        first = await receive(handovers)
        if first is None or first.kind != CONTROL:
            raise StartError(f"the host of {order.name} got no connection to its supervisor")
        connection = HostConnection(first.sock, describe)
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(connection.serve)
            try:
                async with adopt_running_loop(), open_unwrapping_nursery() as tasks:
                    resumption = await _resumption(order)
                    menv = _make(order, seed, connection, resumption)
                    await menv.env.open()
                    if (versions := menv._slaves.ordering.versions) is not None:
                        load_from(versions)
                        versions.keep_loaded()
                    simulation = HostedSimulation(menv, order.name, tasks, _policy(order))
                    hosted.append(simulation)
                    menv._slaves.agent_classes = order.agent_classes
                    if order.nodes is not None:
                        menv._slaves.machines.count, menv._slaves.machines.seconds = order.nodes
                    if resumption is not None and order.resumed is not None:
                        await resumption.fill(order.resumed["changed_code"], order.place)
                        await resumption.go_on()
                        simulation.take_up(resumption.setup["host"])
                    elif order.slave_addrs:
                        # A subclass may have a ``spawn_slaves`` of its own.
                        place = {} if order.place is None else {"place": order.place}
                        await menv.spawn_slaves(
                            order.slave_addrs,
                            order.slave_env_cls,
                            order.slave_mgr_cls,
                            order.slave_kwargs,
                            **place,
                        )
                    await control.ready(pack({"addrs": list(menv.addrs)}))
                    log.info("the simulation %s is up", order.name)
                    tasks.start_soon(_close_on_stop_request, control, simulation)
                    tasks.start_soon(_close_with_manager, menv, simulation)
                    tasks.start_soon(_close_with_supervisor, connection, simulation)
                    await _serve_until_closed(simulation, handovers, tasks)
            finally:
                signal.alarm(0)
                connection.end()
    if simulation.shutdown.cause is not None:
        raise simulation.shutdown.cause
    return pack(fit_to_travel(simulation.shutdown.report, pack))


async def _serve_until_closed(
    simulation: HostedSimulation, handovers: trio.socket.SocketType, tasks: trio.Nursery
) -> None:
    """Serve clients until the shutdown is requested; carry it out, and cancel ``tasks``."""
    server = ClientServer(simulation)
    tasks.start_soon(server.run, handovers)
    await simulation.shutdown.requested.wait()
    await simulation.close()
    # The user's code may shield itself from cancellation for ever; all that matters is closed by
    # now.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(EXIT_SECONDS)
    with trio.move_on_after(ANSWER_SECONDS):
        await simulation.shutdown.wait_answered()
    await server.aclose()
    tasks.cancel_scope.cancel()


def _policy(order: HostSpec) -> RestartPolicy | None:
    """The policy to set; None for the default: a subclass may have its own, without an argument."""
    policy = RestartPolicy.of(order.restart)
    return None if policy == RestartPolicy() else policy


async def _resumption(order: HostSpec) -> Resumption | None:
    """The run that is to go on; None for a new one."""
    if order.resumed is None:
        return None
    path, step, slaves = (order.resumed[name] for name in ("path", "step", "slaves"))
    return await Resumption.open(Path(path), step, slaves)


def _make(
    order: HostSpec, seed: int, connection: HostConnection, resumption: Resumption | None
) -> MultiEnvironment:
    """Make the user's multi-environment, whose slaves this host's supervisor will start.

    Args:
        seed: Drawn unless the order has one; not passed on as an argument then, which a class may
            not have.
    """
    if resumption is not None:
        token = supervisor_factory.set(connection.as_supervisor)
        try:
            resumed = resumption.make()
        finally:
            supervisor_factory.reset(token)
        resumed._name = order.name
        return resumed
    menv_cls = load_subclass("menv_cls", order.menv_cls, MultiEnvironment)
    env_cls = load_subclass("env_cls", order.env_cls, Environment)
    mgr_cls = None if order.mgr_cls is None else load_subclass("mgr_cls", order.mgr_cls, Manager)
    kwargs = {"name": order.name, **order.env_kwargs}
    if order.seed is not None:
        kwargs["seed"] = order.seed
    token, drawn = supervisor_factory.set(connection.as_supervisor), drawn_seed.set(seed)
    try:
        menv: MultiEnvironment = menv_cls(order.addr, env_cls, mgr_cls, **kwargs)
    finally:
        supervisor_factory.reset(token)
        drawn_seed.reset(drawn)
    if order.calls != "rounds":  # else as the class has set it
        menv.calls = order.calls
    if order.record is not None:
        menv._record(Record(**order.record), order.env_kwargs)
    return menv


async def _close_on_stop_request(control: Control, simulation: HostedSimulation) -> None:
    """Close when the supervisor asks for it, and says why unless a user wants it."""
    payload = await control.wait_stop()
    folder, grace, *why = unpack(payload) if payload else (None, GRACE_SECONDS)
    simulation.shutdown.request(folder, grace, *map(CreamasError, why))


async def _close_with_manager(menv: MultiEnvironment, simulation: HostedSimulation) -> None:
    """Close when the manager's own `stop` is called."""
    if isinstance(menv.manager, Manager):
        await menv.manager.stop_received.wait()
        simulation.shutdown.request()


async def _close_with_supervisor(connection: HostConnection, simulation: HostedSimulation) -> None:
    """Close when the supervisor is gone: then the slaves have no owner."""
    await connection.gone.wait()
    simulation.shutdown.request(grace=0.0, cause=CreamasError("the supervisor is gone"))
