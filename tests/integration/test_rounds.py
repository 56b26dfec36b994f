"""Steps over real slaves: how slaves come to know each other, and which steps go in rounds."""

from __future__ import annotations

import pytest
import trio

from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.mp import EnvManager
from tests.support.shared_supervisor import uses_shared_supervisor

ANY_PORT = ("localhost", 0)
BOUND_SECONDS = 30

pytestmark = pytest.mark.usefixtures("shared_supervisor")


class Looks(CreativeAgent):
    """Looks in its act, before it does anything, which slaves it can already call."""

    @expose
    async def act(self, urls: list[str]) -> list[bool]:
        return [self.env.network.endpoint.link(url) is not None for url in urls]


async def test_slaves_are_connected_before_their_agents_act() -> None:
    # An act that computes for long keeps its slave from answering who connects.
    with trio.fail_after(BOUND_SECONDS):
        with uses_shared_supervisor():
            menv = MultiEnvironment(ANY_PORT, Environment, calls="rounds")
        async with menv:
            await menv.spawn_slaves([ANY_PORT] * 3, Environment, EnvManager)
            urls = [manager.removesuffix("0") for manager in menv.get_slave_managers()]
            for manager in menv.get_slave_managers():
                await menv.spawn(Looks, addr=manager)
            first, second, third = await menv.trigger_all(urls)
            assert first[1:] == [True, True]
            assert second == [True, False, True]
            assert third[:2] == [True, True]


class Notes(CreativeAgent):
    """Says its number to the first agent, twice."""

    @expose
    def note(self, number: int) -> None:
        self.A.append(number)  # type: ignore[arg-type]

    @expose
    def noted(self) -> list[int]:
        return self.A  # type: ignore[return-value]

    @expose
    async def act(self) -> None:
        first = await self.env.connect(f"{self.env.base_url}1")
        for _ in range(2):
            await first.note(self.number)


@pytest.mark.parametrize(
    ("calls", "noted"),
    [("free", [[0, 0, 1, 1], [1, 1, 0, 0]]), ("rounds", [[0, 1, 0, 1]])],  # free ones: either
)
async def test_how_calls_go_within_a_slave(calls: str, noted: list[list[int]]) -> None:
    with trio.fail_after(BOUND_SECONDS):
        with uses_shared_supervisor():
            menv = MultiEnvironment(ANY_PORT, Environment, calls=calls)
        async with menv:
            await menv.spawn_slaves([ANY_PORT], Environment, EnvManager)
            first, _ = await menv.spawn(Notes)
            await menv.spawn(Notes)
            await menv.trigger_all()
            assert await first.noted() in noted
