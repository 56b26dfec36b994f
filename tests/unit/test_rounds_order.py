"""Agents' numbers, and what is ordered by them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from creamas_sc import CreativeAgent, Environment, expose, run
from creamas_sc.errors import BadValue
from creamas_sc.rpc.rounds.frames import IDLE, LEAVES, Frames, event_name
from creamas_sc.rpc.rounds.order import Order, numbers_of, order_of, runs_of, sort_key, text_of
from creamas_sc.runtime.scheduling import run_tasks_in_order
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame


def test_agents_come_before_those_that_they_made() -> None:
    orders: list[Order] = [2, (1, 0), 0, (1, 0, 3), 1, (1, 1), 10]
    assert sorted(orders, key=sort_key) == [0, 1, (1, 0), (1, 0, 3), (1, 1), 2, 10]


@pytest.mark.parametrize(
    ("orders", "runs"),
    [
        ([], []),
        ([3], [[3, 1]]),
        ([0, 1, 2, 5, 6, 4], [[0, 3], [5, 2], [4, 1]]),
        ([0, (0, 0), (0, 1), 1], [[0, 1], (0, 0), (0, 1), [1, 1]]),
    ],
)
def test_numbers_are_sent_in_runs(orders: list[Order], runs: list[Any]) -> None:
    assert runs_of(orders) == runs
    assert numbers_of(runs) == orders


@pytest.mark.parametrize(("order", "text"), [(None, ""), (0, "0"), (17, "17"), ((17, 0), "17.0")])
def test_numbers_as_text(order: Order | None, text: str) -> None:
    assert text_of(order) == text
    assert order_of(text) == order


@pytest.mark.parametrize("step", [0, 1])
def test_who_leaves_a_step_that_is_over_gets_no_answer(step: int) -> None:
    frames = Frames()
    frames.begin(1)
    frames.lose("peer")
    name, sent = event_name(step), encode_frame(Kind.EVENT, 0, b"", LEAVES.body, LEAVES.parts)
    (arrived,) = FrameReader().receive_data(b"".join(map(bytes, sent)))
    assert frames.take("peer", name, Payload(arrived.body, arrived.parts)) is None
    assert frames.take("peer", name, IDLE) == step


def test_who_left_the_last_step_gets_no_answer_in_the_next() -> None:
    frames = Frames()
    frames.take("peer", event_name(1), Payload(LEAVES.body, []))
    frames.take("other", event_name(1), Payload(IDLE.body, []))
    assert frames.begin(2) == [("other", 1)]


def test_tasks_that_are_ready_run_in_order() -> None:
    run_tasks_in_order()
    ran: list[int] = []

    async def note(number: int) -> None:
        for _ in range(3):
            ran.append(number)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(note, number)

    trio.run(main)
    assert ran == [*range(50)] * 3


class Maker(CreativeAgent):
    """Makes agents in its act."""

    @expose
    async def act(self) -> list[Any]:
        made = [Maker(self.env) for _ in range(2)]
        return [self.number, [agent.number for agent in made], made[0].rng.random()]


def test_agents_that_agents_make_have_numbers_and_generators_of_their_own() -> None:
    env = Environment.create(("localhost", 0))
    env.calls, env.seed = "rounds", 3
    for _ in range(2):
        Maker(env)
    first = run(env.trigger_all())
    assert [each[:2] for each in first] == [[0, [(0, 0), (0, 1)]], [1, [(1, 0), (1, 1)]]]
    assert first[0][2] != first[1][2]
    numbers = [each[0] for each in run(env.trigger_all())]
    assert numbers == [0, 1, (0, 0), (0, 1), (1, 0), (1, 1)]
    env.close()


class Notes(CreativeAgent):
    """Says its number to the first agent, twice."""

    @expose
    def note(self, number: int) -> None:
        self.A.append(number)  # type: ignore[arg-type]

    @expose
    async def introduce(self) -> None:
        first = await self.env.connect(f"{self.env.base_url}0")
        for _ in range(2):
            await first.note(self.number)


@pytest.mark.parametrize(("calls", "noted"), [("free", [0, 0, 1, 1]), ("rounds", [0, 1, 0, 1])])
def test_calls_that_a_gathered_method_makes(calls: str, noted: list[int]) -> None:
    env = Environment.create(("localhost", 0))
    env.calls = calls
    agents = [Notes(env) for _ in range(2)]
    assert run(env.gather("introduce")) == {agent.addr: None for agent in agents}
    assert agents[0].A == noted
    env.close()


def test_agents_of_an_environment_alone_are_numbered_as_they_were_made() -> None:
    env = Environment.create(("localhost", 0))
    assert [CreativeAgent(env).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(BadValue, match='calls must be "rounds" or "free"'):
        env.calls = random
    assert env.calls == "rounds"
    env.close()
