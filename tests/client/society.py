"""What the simulations of these tests are made of; imported by the daemon's processes only."""

from __future__ import annotations

import os
import signal
from typing import Any

import trio

from creamas_sc import CreativeAgent, Environment, expose
from creamas_sc.mp import EnvManager, MultiEnvironment
from tests.support.values import Sketch


class Painter(CreativeAgent):
    """Makes a sketch an act."""

    def __init__(self, environment: Environment, style: str = "plain") -> None:
        super().__init__(environment)
        self.style = style

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> Any:
        self.publish(Sketch(self, self.env.age, self.style))
        return args, kwargs

    @expose
    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    @expose
    async def ask(self, other: Any, value: Any) -> Any:
        return await other.echo(value)

    @expose
    def itself(self) -> Any:
        return self

    @expose
    def pid(self) -> int:
        return os.getpid()

    @expose
    def fail(self, text: str) -> None:
        raise ValueError(text)

    def secret(self) -> None:
        """Not for others."""


class Sleeper(CreativeAgent):
    """Sleeps through its act; tells how many of its sleeps were cancelled."""

    asleep = cancelled = 0

    @expose
    async def act(self) -> None:
        try:
            type(self).asleep += 1
            await trio.sleep(3600)
        except trio.Cancelled:
            type(self).cancelled += 1
            raise

    @expose
    def naps(self) -> tuple[int, int]:
        return self.asleep, self.cancelled


class Killer(CreativeAgent):
    """Kills its process in its act."""

    @expose
    async def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Failing(CreativeAgent):
    """Cannot be made, or cannot act."""

    def __init__(self, environment: Environment, where: str) -> None:
        super().__init__(environment)
        if where == "init":
            raise ValueError("not made")

    @expose
    async def act(self) -> None:
        raise KeyError("not done")


class Studio(MultiEnvironment):
    """A multi-environment with more methods."""

    @expose
    async def count(self, extra: int = 0) -> int:
        return len(await self.get_agents(as_coro=True)) + extra

    @expose
    def host_pid(self) -> int:
        return os.getpid()

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        return "saved", folder


class Curator(EnvManager):
    """A slave's manager with one more method."""

    @expose
    def pid(self) -> int:
        return os.getpid()
