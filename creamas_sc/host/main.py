"""A host's process: it runs one simulation's multi-environment for as long as the simulation lives.

It inherits one descriptor, a socket on which its supervisor hands it connections: first its own
line to the supervisor, then one for each client.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
from typing import Any

import trio

from creamas_sc.core.environment import Environment
from creamas_sc.errors import CreamasError, LoadError, StartError
from creamas_sc.host.client_server import ClientServer
from creamas_sc.host.shutdown import fit_to_travel
from creamas_sc.host.simulation import HostedSimulation
from creamas_sc.host.supervisor_connection import HostConnection
from creamas_sc.mp import MultiEnvironment
from creamas_sc.mp.managers import Manager
from creamas_sc.mp.slave_main import Control, name_process, seed_process
from creamas_sc.processes.spec import HostSpec, pack, unpack
from creamas_sc.processes.supervisor_client import supervisor_factory
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.rpc.fd_passing import CONTROL, receive
from creamas_sc.runtime.class_loading import class_name, load_class
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.log_setup import open_actor_log
from creamas_sc.runtime.nurseries import open_unwrapping_nursery

__all__ = ["main"]

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0
# Once all is closed: for answers to be written, and for tasks of the user's that will not end.
ANSWER_SECONDS = 1.0
LEAVE_SECONDS = 2
# Descriptors for as many clients as may be attached, and for the rest.
DESCRIPTORS = 4096
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
    told = HostSpec.decode(spec)
    name_process(f"creamas: {told.name} (host)")
    open_actor_log(role="host")
    seed_process(True if told.seed is None else told.seed, HOST_INDEX)
    _allow_descriptors()
    (descriptor,) = control.descriptors
    with trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)) as handovers:
        first = await receive(handovers)
        if first is None or first.kind != CONTROL:
            raise StartError(f"the host of {told.name} was given no line to its supervisor")
        line = HostConnection(first.sock)
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(line.run)
            try:
                return await _run(told, control, line, handovers)
            finally:
                signal.alarm(0)
                line.end()


async def _run(
    told: HostSpec, control: Control, line: HostConnection, handovers: trio.socket.SocketType
) -> bytes:
    async with adopt_running_loop(), open_unwrapping_nursery() as nursery:
        menv = _make(told, line)
        simulation = HostedSimulation(menv, told.name, nursery)
        line.describe = simulation.describe
        await _start(told, menv)
        await control.ready(pack({"addrs": list(menv.addrs)}))
        log.info("the simulation %s is up", told.name)
        desk = ClientServer(simulation)
        nursery.start_soon(desk.run, handovers)
        nursery.start_soon(_mind_requests, control, simulation)
        nursery.start_soon(_mind_manager, menv, simulation)
        nursery.start_soon(_mind_line, line, simulation)
        await simulation.closing.asked.wait()
        await simulation.close()
        _bound_leaving()
        with trio.move_on_after(ANSWER_SECONDS):
            await simulation.closing.answered()
        await desk.aclose()
        nursery.cancel_scope.cancel()
    if simulation.closing.cause is not None:
        raise simulation.closing.cause
    return pack(fit_to_travel(simulation.closing.receipt, pack))


def _make(told: HostSpec, line: HostConnection) -> MultiEnvironment:
    """The user's multi-environment, whose slaves this host's supervisor will start."""
    policy = RestartPolicy.of(told.restart)
    menv_cls = _load("menv_cls", told.menv_cls, MultiEnvironment)
    kwargs = {"name": told.name, **told.env_kwargs}
    if told.seed is not None:
        kwargs["seed"] = told.seed
    env_cls = _load("env_cls", told.env_cls, Environment)
    mgr_cls = None if told.mgr_cls is None else _load("mgr_cls", told.mgr_cls, Manager)
    token = supervisor_factory.set(line.supervisor)
    try:
        made: MultiEnvironment = menv_cls(told.addr, env_cls, mgr_cls, **kwargs)
    finally:
        supervisor_factory.reset(token)
    if policy != RestartPolicy():  # a subclass may have one of its own, and take no argument for it
        made._set_policy(policy)
    return made


def _load(parameter: str, name: str, base: type) -> Any:
    cls = load_class(name)
    if not issubclass(cls, base):
        raise LoadError(f"{parameter}: {class_name(cls)} is no subclass of {base.__name__}")
    return cls


async def _start(told: HostSpec, menv: MultiEnvironment) -> None:
    await menv.env.open()
    if told.slave_addrs:
        await menv.spawn_slaves(
            told.slave_addrs, told.slave_env_cls, told.slave_mgr_cls, told.slave_kwargs
        )


async def _mind_requests(control: Control, simulation: HostedSimulation) -> None:
    """Close when the supervisor asks for it."""
    payload = await control.wait_stop()
    folder, grace = unpack(payload) if payload else (None, GRACE_SECONDS)
    simulation.ask_close(folder, grace)


async def _mind_manager(menv: MultiEnvironment, simulation: HostedSimulation) -> None:
    """Close when the manager's own `stop` is called."""
    if isinstance(menv.manager, Manager):
        await menv.manager.stop_received.wait()
        simulation.ask_close()


async def _mind_line(line: HostConnection, simulation: HostedSimulation) -> None:
    """Close when the supervisor is gone: there is nobody left to own the slaves."""
    await line.gone.wait()
    simulation.ask_close(grace=0.0, cause=CreamasError("the supervisor is gone"))


def _bound_leaving() -> None:
    """End this process if it is still there in a while.

    A user's code may shield itself from cancellation for ever; all that matters is closed by now.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LEAVE_SECONDS)


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
