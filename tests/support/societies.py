"""Societies of random agents over several environments of one process, stepped in rounds.

They stand for the slaves of a multi-environment, without its processes: the same managers, sockets
and frames. Sleeps take different times in every run, and frames arrive late, so that nothing can
repeat itself by accident.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import trio

from creamas_sc import Artifact, CreativeAgent, Environment, expose
from creamas_sc.core.randomness import RandomSource
from creamas_sc.errors import AgentError, AgentErrors
from creamas_sc.mp import EnvManager
from creamas_sc.mp.managers import SPAWN_INDEX
from creamas_sc.rpc.rounds.frames import Frames
from creamas_sc.rpc.rounds.order import sort_key
from creamas_sc.runtime.event_loop import adopt_running_loop

# What an agent may do in an act; a number is that of the agent it does it with.
OPS = ("call", "call back", "nursery", "scope", "sleep", "checkpoint", "publish", "spawn", "raise")
SLEEP_SECONDS = 0.002
# A society that takes longer hangs.
BOUND_SECONDS = 30

# Of no seed: it differs from run to run.
_outside = random.Random()

Op = tuple[str, int]


class Actor(CreativeAgent):
    """Does in each act what its program says, and notes all that happens to it."""

    def __init__(self, environment: Environment, program: Sequence[Op], n: int) -> None:
        super().__init__(environment)
        self.program = program
        self.n = n
        self.notes: list[Any] = []
        self.addresses: list[str] = []

    @expose
    def meet(self, addresses: list[str]) -> None:
        self.addresses = addresses

    @expose
    def plain(self, value: int) -> int:
        """Serve a call at once."""
        self.notes.append(value)
        return len(self.notes)

    @expose
    async def talk(self, who: int, depth: int) -> Any:
        """Serve a call that waits, and perhaps calls others."""
        self.notes.append((who, depth))
        draw = int(self.rng.random() * 100)
        if draw % 7 == 0:
            await self.sleep()
        if draw % 11 == 0:
            raise ValueError(draw)
        if depth:
            return draw, await self.ask((who + draw) % self.n, depth - 1)
        return draw, len(self.notes)

    async def ask(self, other: int, depth: int) -> Any:
        proxy = await self.env.connect(self.addresses[other])
        try:
            return await proxy.talk(len(self.notes), depth)
        except AgentError as error:
            self.notes.append(error.type_name)
            return error.type_name

    async def sleep(self) -> None:
        await trio.sleep(_outside.random() * SLEEP_SECONDS)

    @expose
    async def act(self) -> Any:
        done: list[Any] = []
        for op, other in self.program:
            other %= self.n
            if op == "call":
                done.append(await self.ask(other, 0))
            elif op == "call back":
                done.append(await self.ask(other, 3))
            elif op == "nursery":
                async with trio.open_nursery() as nursery:
                    for number in range(3):
                        nursery.start_soon(self.ask_and_note, (other + number) % self.n, done)
            elif op == "scope":
                with trio.move_on_after(60):
                    await self.sleep()
                    proxy = await self.env.connect(self.addresses[other])
                    done.append(await proxy.plain(len(done)))
            elif op == "sleep":
                await self.sleep()
            elif op == "checkpoint":
                await trio.lowlevel.checkpoint()
            elif op == "publish":
                self.publish(Artifact(self, len(self.notes)))
            elif op == "spawn" and self.number == other:
                made = Actor(self.env, self.program[:1], self.n)
                made.addresses = self.addresses
                done.append(str(made.number))
            elif op == "raise":
                raise KeyError(len(self.notes))
        return done, self.number

    async def ask_and_note(self, other: int, done: list[Any]) -> None:
        done.append(await self.ask(other, 1))


async def run_society(
    programs: Sequence[Sequence[Op]], environments: int, steps: int = 2, seed: int = 1
) -> list[Any]:
    """Step a society of an agent for each program; return all that can be seen of it.

    Args:
        environments: Over how many the agents are dealt out, one after the other.
    """
    seen: list[Any] = []
    n = len(programs)
    with trio.fail_after(BOUND_SECONDS):
        async with adopt_running_loop(), AsyncExitStack() as opened, trio.open_nursery() as late:
            envs = [Environment(("localhost", 0)) for _ in range(environments)]
            for index, env in enumerate(envs):
                env._random = RandomSource(seed, 1 + index)
                await env.open(EnvManager)
                opened.push_async_callback(env.close, as_coro=True)
                _delay(env.network.steps.frames, late)
            actors: list[Actor] = []
            for number, program in enumerate(programs):
                env = envs[number % environments]
                spawned, _ = await env.manager.spawn(Actor, program, n, **{SPAWN_INDEX: number})
                actors.append(spawned)
            for actor in actors:
                actor.meet([other.addr for other in actors])
            urls = [env.base_url for env in envs]
            for step in range(1, steps + 1):
                results: dict[Any, Any] = {}

                async def take(env: Environment, step: int, results: dict[Any, Any]) -> None:
                    agents = env.get_agents(addr=False)
                    try:
                        values = await env.manager.trigger_all_in_rounds(step, urls, None)
                        failed: Any = {}
                    except AgentErrors as errors:
                        values, failed = errors.results, errors.failures
                    left = iter(values)
                    for agent in agents:
                        error = failed.get(agent.addr)
                        results[agent.number] = next(left) if error is None else error.message

                async with trio.open_nursery() as nursery:
                    for env in envs:
                        nursery.start_soon(take, env, step, results)
                seen.append([results[key] for key in sorted(results, key=sort_key)])
            every = [agent for env in envs for agent in env.get_agents(addr=False)]
            for agent in sorted(every, key=lambda agent: sort_key(agent.number)):
                made = [a.obj for a in agent.env.artifacts if a.creator == agent.name]
                seen.append((agent.number, agent.notes, made))
            late.cancel_scope.cancel()
    return seen


def _delay(frames: Frames, nursery: trio.Nursery) -> None:
    """Have each frame arrive a random moment later than it does, in order."""
    take = frames.take
    send, receive = trio.open_memory_channel[Any](10_000)

    async def deliver() -> None:
        async for args in receive:
            if _outside.random() < 0.3:
                await trio.sleep(_outside.random() * SLEEP_SECONDS)
            take(*args)

    nursery.start_soon(deliver)
    frames.take = lambda *args: send.send_nowait(args)  # type: ignore[method-assign]
