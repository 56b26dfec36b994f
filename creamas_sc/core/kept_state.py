"""What a checkpoint keeps of an environment and its agents, as frames, and the way back.

Of an agent that is what its ``__getstate__`` returns, its attributes unless its class says
otherwise; its random generators, with how far they have got; and its number, by which everything is
ordered. An agent is made again without its ``__init__``, and gets the state by its
``__setstate__``, or as its attributes.

Of an environment it is what its ``checkpoint()`` returns, for its ``restore(state)``, if it has
these methods; otherwise the attributes that the user's class has added.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any, Final

from creamas_sc.checkpoints.state_codec import StateCodec
from creamas_sc.core.agent import Agent
from creamas_sc.core.randomness import Spawned
from creamas_sc.errors import CheckpointError, EncodeError, LoadError
from creamas_sc.foreign import summary_of
from creamas_sc.logging import ObjectLogger
from creamas_sc.rpc.addresses import locate
from creamas_sc.rpc.exposed import Proxy
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.rounds.order import Order, text_of
from creamas_sc.runtime.class_loading import class_name, load_class
from creamas_sc.wire.frames import Frame

# Of an agent: where it is, which may be elsewhere later, and what is kept in another way.
_NOT_STATE: Final = frozenset({"_env", "_addr", "_number", "_order", "_made", "logger"})
_OF_MANAGER: Final = _NOT_STATE | {"_host_manager", "_step", "stop_received", "_menv"}
_OF_ENVIRONMENT: Final = frozenset(
    {"_agents", "network", "_listener", "clock", "_name", "_artifacts", "_spawning", "manager"}
    | {"_log_folder", "_logger", "_loop", "_random", "_recording", "_reconnected"}
)
_GENERATORS: Final = ("_rng", "_numpy_rng")
_AN_AGENT: Final = "agent "
_ATTRIBUTE: Final = re.compile(r"\w+\['state'\]\['(?P<name>[^']*)'\](?P<rest>.*)", re.DOTALL)
_ADVICE: Final = "or give the class __getstate__ and __setstate__, which leave it out"


class _References:
    """Agents in states: those of this environment as they are, others as proxies."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.types = network.types

    def describe(self, obj: Any) -> tuple[str, str]:
        """Address and class name, with a mark if it is the agent itself."""
        address, name = self._network.describe(obj)
        return address, name if isinstance(obj, Proxy) else f"{_AN_AGENT}{name}"

    def resolve(self, address: str, name: str) -> Any:
        """The agent, or a proxy of it."""
        if name.startswith(_AN_AGENT) and address.startswith(self._network.base_url):
            return self._network.agent(locate(address)[1])
        return self._network.resolve(address, name.removeprefix(_AN_AGENT))


def state_codec(env: Any, addresses: Mapping[str, str] | None = None) -> StateCodec:
    """What encodes and decodes states of an environment; ``addresses`` as of `StateCodec`."""
    return StateCodec(env.network.codec, _References(env.network), env, addresses)


# ---- an environment


async def environment_state(env: Any) -> dict[str, Any]:
    """What is kept of an environment, without its agents, and of its manager.

    Raises:
        CheckpointError: The user's ``checkpoint()`` failed.
    """
    manager = None if env.manager is None else _without(vars(env.manager), _OF_MANAGER)
    own = await own_state(env, _OF_ENVIRONMENT, "the environment")
    return {"state": own, "manager": manager}


async def restore_environment(env: Any, state: Mapping[str, Any]) -> None:
    """The reverse of `environment_state`."""
    await set_own_state(env, state["state"], "the environment")
    if env.manager is not None and state["manager"] is not None:
        vars(env.manager).update(state["manager"])


async def own_state(obj: Any, others: Iterable[str], whose: str) -> Any:
    """What an environment or multi-environment keeps of itself; see above.

    Args:
        others: Names of the attributes that are not the user's.
        whose: Stands for it in errors.
    """
    if not _has_methods(obj):
        return _without(vars(obj), others)
    with _blamed(f"checkpoint() of {whose}"):
        state = obj.checkpoint()
        return await state if isawaitable(state) else state


async def set_own_state(obj: Any, state: Any, whose: str) -> None:
    """The reverse of `own_state`."""
    if not _has_methods(obj):
        vars(obj).update(state)
        return
    with _blamed(f"restore() of {whose}"):
        restored = obj.restore(state)
        if isawaitable(restored):
            await restored


def _has_methods(obj: Any) -> bool:
    return all(callable(getattr(obj, name, None)) for name in ("checkpoint", "restore"))


def _without(attributes: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: attributes[name] for name in attributes if name not in names}


# ---- agents


def keep_agents(env: Any, codec: StateCodec) -> list[bytes]:
    """A frame of each agent of an environment, labelled with its class.

    Raises:
        CheckpointError: Something cannot be kept; it says of which agent, and what.
    """
    changed = env._reconnected
    frames = []
    for agent in env.get_agents(addr=False):
        kind = class_name(type(agent))
        whose = f"agent {text_of(agent.number)} ({kind})"
        with _blamed(f"__getstate__() of {whose}"):
            state = _state_of(agent)
        kept = {"state": state, "made": agent._made, "logger": _log_of(agent)}
        kept["reconnected"] = changed is None or agent._number in changed
        frames.append(encoded(codec, kept, whose, kind))
    return frames


def restore_agents(
    env: Any, codec: StateCodec, numbers: Sequence[Order], frames: Iterable[Frame]
) -> None:
    """Make kept agents in an environment in which there are none, all or none.

    Args:
        numbers, frames: Of the agents, in the order in which they get their addresses.

    Raises:
        CheckpointError: One cannot be made; it says which.
    """
    frames = list(frames)
    before = len(env._agents)
    try:
        agents = [_shell(env, number, frame) for number, frame in zip(numbers, frames, strict=True)]
        _note_spawned(env, numbers, before)
        changed: set[int] | None = set()
        for agent, frame in zip(agents, frames, strict=True):
            with _blamed(f"agent {text_of(agent.number)} ({class_name(type(agent))})"):
                kept = codec.from_frame(frame)
                agent._made = kept["made"]
                _set_state(agent, kept["state"])
                if kept["logger"] is not None:
                    folder, level = kept["logger"]
                    agent.logger = ObjectLogger(agent, folder, log_level=level)
                if kept["reconnected"] and changed is not None:
                    changed.add(agent._number)
        env._reconnected = None if len(changed or ()) == len(agents) else changed
    except BaseException:
        del env._agents[before:]
        env._spawning.calls.clear()
        raise


def _shell(env: Any, number: Order, frame: Frame) -> Any:
    """An agent without a state."""
    name = bytes(frame.meta).decode()
    with _blamed(f"agent {text_of(number)}"):
        cls = load_class(name)
        if not issubclass(cls, Agent):
            raise LoadError(f"{name!r} is not an agent class")
        agent = cls.__new__(cls)
        agent._env = env
        agent._number = env._spawning.register(agent, None)
        agent._order = number
        return agent


def _note_spawned(env: Any, numbers: Sequence[Order], first: int) -> None:
    """Note which numbers the agents have, from the address ``first`` on."""
    calls = env._spawning.calls
    for at, number in enumerate(numbers, first):
        if isinstance(number, tuple):
            continue
        if calls and calls[-1].first + calls[-1].n == at and sum(calls[-1][1:]) == number:
            calls[-1] = calls[-1]._replace(n=calls[-1].n + 1)
        else:
            calls.append(Spawned(at, number, 1))


def _state_of(agent: Any) -> Any:
    state = agent.__getstate__()
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # slots
        state = {**(state[0] or {}), **state[1]}
    if not isinstance(state, dict):
        return state
    own = {name: vars(agent)[name] for name in _GENERATORS if name in vars(agent)}
    return {**_without(state, _NOT_STATE), **own}


def _set_state(agent: Any, state: Any) -> None:
    if hasattr(agent, "__setstate__"):
        agent.__setstate__(state)
        state = _without(state, state.keys() - _GENERATORS) if isinstance(state, dict) else {}
    for name, value in state.items():
        object.__setattr__(agent, name, value)


def _log_of(agent: Any) -> tuple[str | None, int] | None:
    logger = getattr(agent, "logger", None)
    return (logger.folder, logger.logger.level) if isinstance(logger, ObjectLogger) else None


# ---- the process


def keep_generators() -> Any:
    """The states of the generators that the whole process shares."""
    numpy = sys.modules.get("numpy.random")
    return random.getstate(), None if numpy is None else numpy.get_state(legacy=False)


def restore_generators(states: Any) -> None:
    """The reverse of `keep_generators`."""
    own, of_numpy = states
    random.setstate(own)
    if of_numpy is not None:
        import numpy as np

        np.random.set_state(of_numpy)


# ---- errors


def encoded(codec: StateCodec, kept: Mapping[str, Any], whose: str, label: str = "") -> bytes:
    """A frame of what is kept.

    Raises:
        CheckpointError: It cannot be kept; it says why, and where it is.
    """
    try:
        return codec.to_frame(kept, "kept", label)
    except EncodeError as error:
        found = _ATTRIBUTE.fullmatch(error.path or "")
        where = f"{found['name']}{found['rest']}" if found else error.path
        why = str(error).removeprefix(f"{error.path}: ")
        raise CheckpointError(f"{whose}: its {where}: {why}, {_ADVICE}") from None


@contextmanager
def _blamed(whose: str) -> Iterator[None]:
    """Say whose fault it is if the block fails."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # user code may raise anything
        raise CheckpointError(f"{whose}: {summary_of(error)}") from error
