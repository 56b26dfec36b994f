"""An environment on its own as what is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from creamas_sc.rpc.addresses import locate
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.runtime.class_loading import class_name

if TYPE_CHECKING:
    from creamas_sc.core.environment import Environment
    from creamas_sc.wire.codec import Codec


class EnvironmentSubject:
    """What the record of a single environment asks for; see `creamas_sc.results.recording`."""

    write_checkpoint: Callable[..., Awaitable[None]] | None = None  # there are none

    def __init__(self, env: Environment) -> None:
        self.environment: Any = env

    @property
    def codec(self) -> Codec:
        """Encodes the objects of artifacts."""
        return self.environment.network.codec  # type: ignore[no-any-return]

    @property
    def address(self) -> str:
        """Stands for the environment's code in errors."""
        return self.environment.base_url  # type: ignore[no-any-return]

    def setup(self) -> dict[str, Any]:
        """How it is set up."""
        env = self.environment
        return {"class": class_name(type(env)), "seed": env.seed, "calls": env.calls}

    def sources(self) -> None:
        """All of the user's code is in this process."""

    def last_step(self) -> None:
        """It is not known whether a step of it is repeatable."""

    def numbers(self, url: str) -> Sequence[Order]:
        """The numbers of its agents."""
        return [agent.number for agent in self.environment.get_agents(addr=False)]

    def number_of(self, address: str) -> Order | None:
        """The number of the agent at an address, if it is one."""
        env = self.environment
        if not address.startswith(env.base_url):
            return None
        try:
            number: Order = env.network.agent(locate(address)[1]).number
        except (KeyError, ValueError):
            return None
        return number
