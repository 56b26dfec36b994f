"""Who is busy: agents whose activities keep tasks, and wait for more than answers to calls."""

from __future__ import annotations

import math
from collections import deque
from itertools import chain

from creamas_sc.rpc.rounds.activity import Activity
from creamas_sc.rpc.rounds.calls import Call, PeerCall
from creamas_sc.rpc.rounds.order import Order


class Busy:
    """The agents of a step that are busy, and what is put off until they are not.

    Args:
        ready: Where that goes then.

    Attributes:
        agents: The activity that keeps each one busy.
        stuck: Activities without which a round has ended, until they go on.
        deferred: Calls and answers for busy agents.
    """

    def __init__(self, ready: deque[Call | PeerCall]) -> None:
        self.agents: dict[Order, Activity] = {}
        self.stuck: set[Activity] = set()
        self.deferred: dict[Order, deque[Call | PeerCall]] = {}
        self._ready = ready

    def defer(self, number: Order, item: Call | PeerCall) -> None:
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

    def remove_quiet(self) -> None:
        """Remove those that wait for answers alone by now."""
        for activity in [*self.agents.values(), *self.stuck]:
            if activity.is_quiet():
                self.remove(activity)

    def hold_seconds(self, until: float) -> float:
        """How long nothing may run before the round ends without them.

        Args:
            until: When the step ends; that some of them wait for this is no reason to wait.
        """
        return max((each.hold_seconds(until) for each in self.agents.values()), default=math.inf)

    def wait_in_part(self) -> bool:
        """Whether some have tasks that wait for answers, beside others."""
        return any(each.waiting for each in chain(self.agents.values(), self.stuck))

    def give_up(self) -> list[str]:
        """Go on without them: what is put off is handled meanwhile; the agents' addresses."""
        given_up = list(self.agents.values())
        for activity in given_up:
            self.stuck.add(activity)
            self._release(activity)
        return [activity.agent.addr for activity in given_up]
