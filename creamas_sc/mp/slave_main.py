"""The entry of a slave: the process that holds one environment and its agents."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from creamas_sc.core.construction import make_environment
from creamas_sc.core.environment import Environment
from creamas_sc.core.randomness import RandomSource, seed_process
from creamas_sc.errors import AgentError, AgentErrors, BadValue, CreamasError, to_wire
from creamas_sc.mp.managers import Manager
from creamas_sc.mp.stacks import answering_for
from creamas_sc.rpc.auth import Membership, membership
from creamas_sc.runtime.class_loading import load_subclass
from creamas_sc.runtime.debugging import refuse_breakpoints
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.log_setup import open_actor_log
from creamas_sc.runtime.nurseries import first_of, open_unwrapping_nursery
from creamas_sc.serializers import NeedlessSerializers
from creamas_sc.supervisor_client.spec import SlaveSpec, pack, unpack

_ENDED = "an agent has closed its environment, or cancelled the tasks in which it runs"


class Control(Protocol):
    """What an entry gets to communicate with its supervisor.

    Attributes:
        descriptors: Those that the process was started with.
    """

    descriptors: tuple[int, ...]

    async def ready(self, info: bytes) -> None:
        """Report that the process is up; once."""

    async def wait_stop(self) -> bytes:
        """Wait until asked to stop; the payload of the request."""


async def main(spec: bytes, control: Control) -> bytes:
    """The entry of a slave's process: serve an environment until asked to stop.

    Returns:
        The packed descriptions of what `save_info` or the agents' ``close`` raised.
    """
    order = SlaveSpec.decode(spec)
    about: dict[str, Any] = {"address": None}
    with answering_for(lambda: about):
        return await _serve(order, control, about)


async def _serve(order: SlaveSpec, control: Control, about: dict[str, Any]) -> bytes:
    """As `main`; ``about`` gets what is to be known of the environment."""
    open_actor_log(slave=order.index)
    refuse_breakpoints()
    env_cls = load_subclass("env_cls", order.env_cls, Environment)
    mgr_cls = load_subclass("mgr_cls", order.mgr_cls, Manager)
    seed_process(order.set_seed, order.index, order.incarnation)
    # The script has seen this, or would see it from each slave.
    warnings.simplefilter("ignore", NeedlessSerializers)
    if order.member is not None:
        membership.set(Membership(*order.member, order.generation))
    async with adopt_running_loop():
        env = make_environment(env_cls, order.addr, order.args, order.kwargs)
        seed = env._random.seed  # which the environment's class has set
        if not isinstance(order.set_seed, bool) and (seed is None or not order.seed_drawn):
            seed = order.set_seed
        env._random = RandomSource(seed, 1 + order.index, order.incarnation)
        env._listener.restarted = order.incarnation > 0
        env._listener.elsewhere = order.elsewhere
        env.network.slaves_return = order.others_return
        await env.open(mgr_cls)
        about["address"] = env.base_url
        name_process(f"creamas: {env_cls.__name__} {env.base_url}")
        await control.ready(pack((env.base_url, env.network.endpoint.place)))
        folder = await _wait_stop(control, env)
        part = env.log_folder if folder is None else os.path.join(folder, f"slave-{order.index}")
        return pack([to_wire(failure) for failure in await _close(env, part)])
    raise CreamasError(_ENDED)  # the block was cancelled from within


async def _close(env: Any, folder: str | None) -> list[AgentError]:
    """Save and close; returns what failed."""
    try:
        await env.close(folder=folder, as_coro=True)
    except AgentErrors as errors:
        return list(errors.failures.values())
    except BadValue as error:  # there is no such folder: nothing can be saved
        return [AgentError.from_exception(env.base_url, error), *await _close(env, None)]
    return []


async def _wait_stop(control: Control, env: Any) -> str | None:
    """Wait for the supervisor's request or the manager's `stop`; returns the request's folder.

    Raises:
        CreamasError: The environment has ended before that.
    """
    folder: str | None = None
    stop, ended = env.manager.stop_received, env.network.endpoint.ended
    async with open_unwrapping_nursery() as nursery:

        async def wait_environment() -> None:
            await first_of(stop, ended)
            if not stop.is_set():
                raise CreamasError(_ENDED)
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_environment)
        folder = unpack(await control.wait_stop() or pack(None))
        nursery.cancel_scope.cancel()
    return folder


def name_process(title: str) -> None:
    """Show ``title`` in ``ps``, if setproctitle is installed."""
    if find_spec("setproctitle") is not None:
        import_module("setproctitle").setproctitle(title)
