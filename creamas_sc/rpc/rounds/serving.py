"""The serving end of calls in rounds: calls methods, and gives the exchange what they return."""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import DeadlineExceeded, UnknownAgent
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.rpc.exposed import bad_arguments, exposed_method, is_awaitable
from creamas_sc.rpc.rounds.activity import Activity
from creamas_sc.rpc.rounds.calls import Call, PeerCall
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.runtime.nurseries import cancellation_in

if TYPE_CHECKING:
    from creamas_sc.rpc.node import Node
    from creamas_sc.rpc.rounds.exchange import Exchange


class Serving:
    """Serves calls of one environment's agents.

    Attributes:
        agent: The one whose plain method serves a call just now.
        activities: Those that serve calls, by the caller's environment and the call's number.
        given_up: Calls that were not served when they were given up; some had been before.
    """

    def __init__(self, node: Node, exchange: Exchange) -> None:
        self.agent: Any = None
        self.activities: dict[tuple[str | None, int], Activity] = {}
        self.given_up: set[tuple[str | None, int]] = set()
        self._node = node
        self._exchange = exchange

    def begin(self, call: Call | PeerCall) -> Activity | None:
        """Serve a call: at once, or by the activity that is returned."""
        try:
            agent = self._node.agent(call.target)
        except UnknownAgent as error:
            self._exchange.add_failure(call, error)
            return None
        method: Any = None
        try:
            self.agent = call.agent = agent
            method = exposed_method(agent, call.method)
            value = method(*call.args, **call.kwargs)
            waits = type(value) is CoroutineType or is_awaitable(value)
        except BaseException as error:
            self._fail(call, bad_arguments(method, error) or error)
            return None
        finally:
            self.agent = None
        if not waits:
            self._exchange.add_answer(call, value)
            return None
        activity = Activity(self._finish(call, value), call)
        self.activities[call.url, call.number] = activity
        return activity

    async def _finish(self, call: Call | PeerCall, value: Any) -> None:
        try:
            result = await value
        except BaseException as error:
            cancelled = cancellation_in(error)
            if cancelled is not None:
                ended = DeadlineExceeded(
                    f"{call.method} was cancelled, or its time ran out", acknowledged=True
                )
                self._exchange.add_failure(call, ended)
                raise cancelled from None
            self._fail(call, error)
        else:
            self._exchange.add_answer(call, result)
        finally:
            del self.activities[call.url, call.number]

    def _fail(self, call: Call | PeerCall, error: BaseException) -> None:
        if is_ctrl_c(error):
            raise error
        self._exchange.add_failure(call, self._node.reported(call.target, error))

    def handler(self, item: Call | PeerCall) -> Order | None:
        """The number of the agent that handles a call or an answer, if there is such an agent."""
        if item.answered:
            return item.activity.agent.number  # type: ignore[union-attr, no-any-return]
        try:
            return self._node.agent(item.target).number  # type: ignore[no-any-return]
        except UnknownAgent:
            return None

    def of_lost_peers(self) -> list[tuple[str | None, int]]:
        """The calls under way of environments that take part no more."""
        if not self._exchange.irregular:
            return []
        return [key for key in self.activities if not self._exchange.reaches(key[0])]
