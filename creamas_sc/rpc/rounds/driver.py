"""Calls of agents in rounds: what they lead to depends on nobody's timing.

In a step that goes in rounds, every agent runs as far as it can; then all calls that were made are
exchanged at once, are served in an order that the agents' numbers decide, and everybody runs on:

    acts, in spawn order  --->  +----------------------------------------------+
                                | run what is ready, until each *activity* (an |
                                | act, or a method that serves a call) has     | <--+
                                | ended or waits for answers                   |    |
                                +----------------------------------------------+    |
                                        | nothing is left to run                    |
                                        v                                           |
                       one frame to each other environment of the step, and         |
                       one from each: calls, answers, how much is under way         |
                                        |                                           |
                                        +--> ready: calls in the order (caller, its count),
                                        |           then answers in the same order -+
                                        v
                        nothing is under way or was sent anywhere: the step is over

**Activities are driven by hand.** The await of a call yields the `Call` itself, which is no trap of
trio's. An activity that is driven here is then *parked*: ten thousand agents that wait for answers
are ten thousand entries of a dict, not tasks. Where its code waits for anything else, or has
entered a cancel scope or a nursery, it *keeps* the task in which that happened, as trio demands;
the driver goes on in a new task, and such an activity's calls wait there.

**One thing at a time for each agent.** An activity that keeps a task is *busy* until it ends or all
its tasks wait for answers; so long the agent's other calls and answers are put off, and the round
stays open. So a sleep, a thread or a web service holds the round open, many of them side by side.

**What else agents call.** The master environment takes part once its manager is the host manager of
slaves' managers: then calls of that are served in the same order. Calls to anywhere else are served
at once, and what they lead to may depend on timing.

**Nothing hangs.** Where a busy activity waits for what only a call of this round may bring, such as
an event, and nothing has run for `HOLD_SECONDS`, the round ends without it; where it seems to wait
for the outside, as for a thread or a call that does not go in rounds, after `OUTSIDE_SECONDS`. The
step's result may then depend on timing: `Rounds.held_up` names the agents.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from types import coroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import trio

from creamas_sc.errors import DeadlineExceeded
from creamas_sc.rpc.rounds.activity import WAITS, Activity, current_activity
from creamas_sc.rpc.rounds.busy import Busy
from creamas_sc.rpc.rounds.calls import Call, Request
from creamas_sc.rpc.rounds.serving import Serving
from creamas_sc.rpc.socket_stream import TRIO_LOOP, TrioWaiter, effective_deadline
from creamas_sc.runtime.scheduling import run_tasks_in_order
from creamas_sc.runtime.timeouts import YIELD_SECONDS

if TYPE_CHECKING:
    from creamas_sc.rpc.network import Network
    from creamas_sc.rpc.rounds.exchange import Exchange

# Calls of plain methods that are served before other tasks may run.
SERVED_AT_ONCE = 64
# After so many checkpoints in turn, an activity may be waiting for what another one does.
MAX_CHECKPOINTS = 10_000

_CHECKPOINT = TRIO_LOOP.checkpoint


class Rounds:
    """One step of one environment, in rounds with the others of the step.

    Args:
        network: The environment's.
        exchange: With the other environments.

    Attributes:
        driving: The activity that runs now, driven from here.
        held_up: The addresses of agents without which a round has ended.
        over: Whether the step is over, everywhere.
        under_way: Whether calls go in rounds: it has not ended here, and was not cancelled.
    """

    _next_act: Callable[[], Activity | None]
    _nursery: trio.Nursery
    _deadline: float

    def __init__(self, network: Network, exchange: Exchange) -> None:
        self.driving: Activity | None = None
        self.over = False
        self.under_way = True
        self._network = network
        self._exchange = exchange
        self._ready: deque[Call | Request] = deque()
        # Those that wait for answers without a task.
        self._parked: dict[Activity, Call] = {}
        self._busy = Busy(self._ready)
        self.held_up = self._busy.given_up
        self._serving = Serving(network, exchange)
        self._open = 0
        # Calls that a task waits for.
        self._waited: set[Call] = set()
        _under_way.add(self)

    def leave(self) -> None:
        """Run nothing more, here in a forked child: the parent does."""
        self._ready.clear()
        self._busy.deferred.clear()

    # ---- calls

    @property
    def agent(self) -> Any:
        """The agent whose code runs now, as part of the step; None if none does."""
        if self._serving.agent is not None:
            return self._serving.agent
        running = self.driving or current_activity.get()
        return None if running is None or running.over else running.agent

    def place(self, address: str) -> tuple[str | None, int] | None:
        """Where the agent at ``address`` is, if a call of the running code to it goes in rounds."""
        if self.driving is None and self._serving.agent is None:
            running = current_activity.get()
            if running is None or running.over or not self.under_way:
                return None
        return self._exchange.places.get(address) or self._exchange.place(address)

    async def call(
        self,
        place: tuple[str | None, int],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call the method of an agent, and return what it returns."""
        exchange, driven = self._exchange, self.driving
        if not self.under_way or (exchange.irregular and not exchange.reaches(place[0])):
            return await self._call_at_once(*place, method, args, kwargs)
        activity = driven or current_activity.get()
        if activity is None:
            raise RuntimeError(f"{method}: awaited outside the step in which it was called")
        call = exchange.add_call(activity, place, method, args, kwargs)
        return await (call if driven else self._wait(call))

    def _call_at_once(self, url: str | None, target: int, *call: Any) -> Coroutine[Any, Any, Any]:
        return self._network.call_at_once(f"{url or self._network.base_url}{target}", *call)

    @coroutine
    def _wait(self, call: Call) -> Generator[Any, Any, Any]:
        """Wait for the answer in the running task, which the activity keeps."""
        activity = call.activity
        assert activity is not None
        call.waiter = waiter = TrioWaiter()
        self._waited.add(call)
        activity.waiting += 1
        self._exchange.changed.set()
        trio.lowlevel.current_task().custom_sleep_data = WAITS
        try:
            yield from waiter.wait()
        except BaseException:
            self._abandon(call)
            self._busy.add(activity)
            raise
        finally:
            self._waited.discard(call)
            activity.waiting -= 1
        if waiter.answer is None:  # the step was cancelled, and the call shielded from that
            if not self._exchange.withdraw(call):
                raise DeadlineExceeded(f"{call.request[4]}: the step was cut short")
            return (yield from self._call_at_once(call.url, *call.request[3:]))
        if call.error is not None:
            raise call.error
        return call.value

    def _abandon(self, call: Call) -> None:
        """Have a call cancelled: its caller does not wait any more."""
        self._exchange.abandon(call)
        if call.url is None:
            self.cancel_served(None, call.request[1])

    # ---- running

    async def run(self, next_act: Callable[[], Activity | None], nursery: trio.Nursery) -> None:
        """Take the step, to its end or until an activity keeps the task: then in another one.

        Args:
            next_act: Starts an activity with acts that have not begun; None if none are left.
            nursery: For the tasks of activities; when it is cancelled, they are. Its deadline is
                the step's time limit.
        """
        run_tasks_in_order()
        self._next_act, self._nursery = next_act, nursery
        self._deadline = effective_deadline()
        self._exchange.limited = nursery.cancel_scope.deadline < math.inf
        await self._run()

    async def _run(self) -> None:
        try:
            await self._drive()
        except BaseException:  # the step is cancelled, and so are the activities, each in a task
            self.under_way = False
            if trio.current_time() >= self._nursery.cancel_scope.deadline:
                self._exchange.time_is_up = True
            for activity in self._parked:
                self._nursery.start_soon(self._keep_woken, activity)
            self._parked.clear()
            for call in self._waited:
                assert call.waiter is not None
                call.waiter.set()
            raise

    @coroutine
    def _drive(self) -> Generator[Any, Any, None]:
        """Run what is ready and end rounds, until the step is over or the task is kept."""
        task = trio.lowlevel.current_task()
        with trio.CancelScope() as scope:
            status, inner = task._cancel_status, len(task.child_nurseries)
            yield_at, yielded = time.perf_counter() + YIELD_SECONDS, True
            while True:
                if time.perf_counter() > yield_at:
                    yield from trio.lowlevel.checkpoint()  # noqa: ASYNC105
                    yield_at = time.perf_counter() + YIELD_SECONDS
                elif yielded:  # the step may have been cancelled
                    yield from trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC105
                    yielded = False
                following = self._next()
                if following is None:
                    if not self._ready:
                        self.over = yield from self._end_round()
                        if self.over:
                            return
                    continue
                activity = following[0]
                trap, checkpoints = self._send(*following), 0
                while trap is _CHECKPOINT and checkpoints < MAX_CHECKPOINTS:
                    yielded, checkpoints = True, checkpoints + 1
                    try:
                        value = yield trap
                    except BaseException as error:
                        trap = self._send(activity, None, error)
                    else:
                        trap = self._send(activity, value, None)
                if trap is None:
                    continue
                entered = task._cancel_status is not status or len(task._child_nurseries) > inner
                if type(trap) is Call and not entered:
                    self._parked[activity] = trap
                else:
                    activity.scope, activity.inner = scope, inner
                    self._nursery.start_soon(self._run)
                    yield from self._keep(activity, trap)
                    return

    def _send(self, activity: Activity, value: Any, error: BaseException | None) -> Any:
        """Let an activity run on; return what it waits for, or None if it has ended."""
        self.driving = activity
        try:
            trap = activity.resume(value, error)
        except StopIteration:
            self._end(activity)
            return None
        except BaseException:
            self._end(activity)
            raise
        finally:
            self.driving = None
        if activity.suspend is not None:
            activity.suspend()
            activity.suspend = None
        return trap

    @coroutine
    def _keep(self, activity: Activity, trap: Any) -> Generator[Any, Any, None]:
        """Go on with an activity in the running task, to its end."""
        activity.task = trio.lowlevel.current_task()
        self._busy.add(activity)
        value: Any = None
        try:
            while True:
                error: BaseException | None = None
                try:
                    if type(trap) is Call:
                        value = yield from self._wait(trap)
                    elif trap is None:  # it is to be cancelled
                        yield from TrioWaiter().wait()
                    else:
                        value = yield trap
                except BaseException as raised:
                    error = raised
                try:
                    trap = activity.resume(value, error)
                except StopIteration:
                    return
        finally:
            self._end(activity)
            self._exchange.changed.set()

    async def _keep_woken(self, activity: Activity) -> None:
        """Go on with an activity that was parked, in this task, to have it cancelled."""
        with activity.scope or trio.CancelScope():
            await self._keep(activity, None)

    def _end(self, activity: Activity) -> None:
        activity.over = True
        self._open -= 1
        if activity.task is not None:
            self._busy.remove(activity)

    # ---- what is ready

    def _next(self) -> tuple[Activity, Any, BaseException | None] | None:
        """The next activity to run on, with the answer for which it has waited, if it has.

        Calls of plain methods are served on the way. None if nothing is ready, or if other tasks
        are to have their turn first.
        """
        ready, busy, given_up = self._ready, self._busy.agents, self._serving.given_up
        for _ in range(SERVED_AT_ONCE):
            if not ready:
                break
            item = ready.popleft()
            if busy:
                number = self._serving.handler(item)
                if number in busy:
                    self._busy.defer(number, item)
                    continue
            if isinstance(item, Call):
                activity = item.activity
                if activity is None:
                    continue
                if item.waiter is None:
                    del self._parked[activity]
                    return activity, item.value, item.error
                self._busy.add(activity)
                item.waiter.answer = item
                item.waiter.set()
            elif not given_up or (item[2], item[1]) not in given_up:
                activity = self._serving.begin(item)
                if activity is not None:
                    self._open += 1
                    return activity, None, None
        if ready:
            return None
        activity = self._next_act()
        if activity is None:
            return None
        self._open += 1
        return activity, None, None

    def cancel_served(self, url: str | None, number: int) -> None:
        """The caller of a call has given it up: it is cancelled, or not served at all."""
        activity = self._serving.activities.get((url, number))
        if activity is None:
            self._serving.given_up.add((url, number))
            return
        call = self._parked.pop(activity, None)
        if call is not None:
            self._abandon(call)
            activity.scope = trio.CancelScope()
            self._nursery.start_soon(self._keep_woken, activity)
        if activity.scope is not None:
            activity.scope.cancel()

    # ---- the end of a round

    async def _end_round(self) -> bool:
        """Wait until nothing runs, and exchange calls and answers; whether the step is over.

        Returns False as well if something is ready to run after all.
        """
        if self._busy.agents or self._busy.stuck:
            await self._busy.wait(self._exchange, self._deadline)
        if self._ready:
            return False
        over = await self._exchange.exchange(self._open + len(self._busy.deferred))
        if self._exchange.time_is_up:  # as clocks differ, a moment before it is here
            self._nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
        for url, number in self._serving.of_lost_peers():
            self.cancel_served(url, number)
        self._ready += self._exchange.received
        return over


_under_way: WeakSet[Rounds] = WeakSet()


def parked_activities() -> Iterator[tuple[Activity, Call]]:
    """Those of this process that wait for answers without a task, and for which."""
    for rounds in _under_way:
        yield from rounds._parked.items()


def _leave_rounds() -> None:
    for rounds in list(_under_way):
        rounds.leave()


os.register_at_fork(after_in_child=_leave_rounds)
