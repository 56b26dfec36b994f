"""Who is busy: agents whose activities keep tasks, and wait for more than answers to calls."""

from __future__ import annotations

import math
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

import trio

from creamas_sc.rpc.rounds.activity import Activity
from creamas_sc.rpc.rounds.calls import Call, Request
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.rpc.socket_stream import TrioWaiter

if TYPE_CHECKING:
    from creamas_sc.rpc.rounds.exchange import Exchange

# How often to look whether tasks that an activity has started have ended.
LOOK_SECONDS = 0.001


class Busy:
    """The agents of a step that are busy, and what is put off until they are not.

    Args:
        ready: Where that goes then.

    Attributes:
        agents: The activity that keeps each one busy.
        stuck: Activities without which a round has ended, until they go on.
        deferred: Calls and answers for busy agents.
        given_up: The addresses of agents without which a round has ended.
    """

    def __init__(self, ready: deque[Call | Request]) -> None:
        self.agents: dict[Order, Activity] = {}
        self.stuck: set[Activity] = set()
        self.deferred: dict[Order, deque[Call | Request]] = {}
        self.given_up: list[str] = []
        self._ready = ready

    def defer(self, number: Order, item: Call | Request) -> None:
        """Put off what the busy agent of that number is to handle."""
        self.deferred.setdefault(number, deque()).append(item)

    def add(self, activity: Activity) -> None:
        """An activity goes on in its task, unless it is a task that it started elsewhere."""
        self.stuck.discard(activity)
        if activity.task is None or activity.over:
            return
        if self.agents.setdefault(activity.agent.number, activity) is not activity:
            self.stuck.add(activity)

    def remove(self, activity: Activity) -> None:
        """An activity has ended, or waits for answers alone."""
        self.stuck.discard(activity)
        self._release(activity)

    def _release(self, activity: Activity) -> None:
        number = activity.agent.number
        if self.agents.get(number) is activity:
            del self.agents[number]
            deferred = self.deferred.pop(number, None)
            if deferred:
                self._ready.extendleft(reversed(deferred))

    async def wait(self, exchange: Exchange, until: float) -> None:
        """Wait until the round can end, or something is ready to run after all.

        Agents that hold it open for too long are given up.

        Args:
            until: When the step ends.
        """
        idle_since = trio.current_time()
        while self.agents or self.stuck:
            self._remove_quiet()
            has_content = bool(self.deferred) or exchange.has_content()
            if self._ready or not (self.agents or (self.stuck and not has_content)):
                return
            hold_seconds = self._hold_seconds(until) if has_content else math.inf
            pause = LOOK_SECONDS if self._wait_in_part() else hold_seconds
            exchange.urge()
            exchange.changed = changed = TrioWaiter()
            with trio.move_on_after(pause):
                await changed.wait()
            if not changed.is_set():
                await trio.lowlevel.checkpoint()  # on a busy machine, others may be late
            if changed.is_set():
                idle_since = trio.current_time()
            elif trio.current_time() - idle_since >= hold_seconds:
                self._give_up()

    def _remove_quiet(self) -> None:
        """Remove those that wait for answers alone by now."""
        for activity in [*self.agents.values(), *self.stuck]:
            if activity.is_quiet():
                self.remove(activity)

    def _hold_seconds(self, until: float) -> float:
        """How long nothing may run before the round ends without them.

        Args:
            until: When the step ends; that some of them wait for this is no reason to wait.
        """
        return max((each.hold_seconds(until) for each in self.agents.values()), default=math.inf)

    def _wait_in_part(self) -> bool:
        """Whether some have tasks that wait for answers, beside others."""
        return any(each.waiting for each in chain(self.agents.values(), self.stuck))

    def _give_up(self) -> None:
        """Go on without them: what is put off is handled meanwhile."""
        for activity in list(self.agents.values()):
            self.stuck.add(activity)
            self._release(activity)
            self.given_up.append(activity.agent.addr)
