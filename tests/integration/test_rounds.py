"""Steps in rounds over real slaves: how slaves come to know each other."""

from __future__ import annotations

import trio

from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.mp import EnvManager

ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 30


class Looks(CreativeAgent):
    """Looks in its act, before it does anything, which slaves it can already call."""

    @expose
    async def act(self, urls: list[str]) -> list[bool]:
        return [self.env.network.endpoint.link(url) is not None for url in urls]


async def test_slaves_are_connected_before_their_agents_act() -> None:
    # An act that computes for long keeps its slave from answering who connects.
    with trio.fail_after(BOUND_SECONDS):
        async with MultiEnvironment(ANY_PORT, Environment, calls="rounds") as menv:
            await menv.spawn_slaves([ANY_PORT] * 3, Environment, EnvManager)
            urls = [manager.removesuffix("0") for manager in menv.get_slave_managers()]
            for manager in menv.get_slave_managers():
                await menv.spawn(Looks, addr=manager)
            first, second, third = await menv.trigger_all(urls)
            assert first[1:] == [True, True]
            assert second == [True, False, True]
            assert third[:2] == [True, True]
