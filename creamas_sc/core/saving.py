"""What a close runs of the user's code: `save_info`, and the ``close`` of each agent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from creamas_sc.core.agent import CreativeAgent
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.runtime.nurseries import reraise_cancellation

if TYPE_CHECKING:
    from creamas_sc.core.environment import Environment


async def save_all(env: Environment, folder: str | None, failures: dict[str, BaseException]) -> Any:
    """Save an environment and close its agents; returns what `save_info` returned.

    Args:
        failures: Gets what fails, by address.
    """
    saved = await _guarded(failures, env.base_url, lambda: env.save_info(folder))
    for agent in env.get_agents(addr=False, include_manager=True):
        if getattr(agent.close, "__func__", None) is CreativeAgent.close:
            continue  # nothing to do; there may be half a million of them
        await _guarded(failures, agent.addr, partial(agent.close, folder=folder))
    return saved


async def _guarded(
    failures: dict[str, BaseException], address: str, action: Callable[[], Any]
) -> Any:
    """Call user code and await what it returns; record what it raises in ``failures``."""
    try:
        value = action()
        return await value if isawaitable(value) else value
    except BaseException as error:  # user code may raise anything, SystemExit included
        reraise_cancellation(error)
        if is_ctrl_c(error):
            raise
        failures[address] = error
        return None
