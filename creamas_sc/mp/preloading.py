"""Agent classes that slaves load side by side as they start, before agents are made one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

from creamas_sc.core.agent import Agent
from creamas_sc.errors import ConnectionLost, CreamasError, LoadError, StartError
from creamas_sc.mp.managers import Manager
from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.network import Network
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.loaded_modules import modules_of_script

log = logging.getLogger(__name__)


async def load_classes(network: Network, slaves: Sequence[Slave], names: Iterable[str]) -> None:
    """Have slaves load classes, and those of the script.

    Args:
        network: The master environment's.
        names: Of further classes.

    Raises:
        StartError: A slave has ended.
    """
    all_names = sorted({*script_agent_classes(), *names})
    if not all_names:
        return

    async def load(slave: Slave) -> None:
        try:
            await network.call_agent(slave.address, "_load_classes", (all_names,), {})
        except ConnectionLost as error:
            raise StartError(str(error)) from error
        except CreamasError as error:  # a spawn will meet it too
            log.debug("%s has not loaded its agents' classes: %s", slave.address, error)

    await at_once(load, slaves)


def script_agent_classes() -> list[str]:
    """Names of agent classes that the script has, or has imported: one of each module."""
    modules = {each for each in modules_of_script() if not each.startswith("creamas_sc.")}
    names: dict[str, str] = {}
    unseen: list[type] = [Agent]
    while unseen:
        cls = unseen.pop()
        unseen += cls.__subclasses__()
        module = cls.__module__
        if module in modules - names.keys() and not issubclass(cls, Manager):
            with suppress(LoadError):  # it cannot be spawned either
                names[module] = portable_name(cls)
    return sorted(names.values())
