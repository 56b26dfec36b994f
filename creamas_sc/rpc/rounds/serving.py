"""The serving end of calls in rounds: calls methods, and gives the exchange what they return."""

from __future__ import annotations

from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import DeadlineExceeded, UnknownAgent
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.rpc.exposed import NEVER_AWAITED, bad_arguments, exposed_method
from creamas_sc.rpc.rounds.activity import Activity
from creamas_sc.rpc.rounds.calls import Call, Request
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.runtime.nurseries import cancellation_in

if TYPE_CHECKING:
    from creamas_sc.rpc.network import Network
    from creamas_sc.rpc.rounds.exchange import Exchange


class Serving:
    """Serves calls of one environment's agents.

    Attributes:
        agent: The one whose plain method serves a call just now.
        activities: Those that serve calls, by the caller's environment and the call's number.
        given_up: Calls that were not served when they were given up; some had been before.
    """

    def __init__(self, network: Network, exchange: Exchange) -> None:
        self.agent: Any = None
        self.activities: dict[tuple[str | None, int], Activity] = {}
        self.given_up: set[tuple[str | None, int]] = set()
        self._network = network
        self._exchange = exchange

    def begin(self, request: Request) -> Activity | None:
        """Serve a call: at once, or by the activity that is returned."""
        _, number, url, target, name, args, kwargs = request
        method: Any = None
        try:
            self.agent = agent = self._network.agent(target)
            method = exposed_method(agent, name)
            value = method(*args, **kwargs) if kwargs else method(*args)
            kind = type(value)
            waits = kind not in NEVER_AWAITED and (kind is CoroutineType or isawaitable(value))
        except BaseException as error:
            if self.agent is None:  # there is no such agent
                self._exchange.add_failure(request, error)
            else:
                self._fail(request, bad_arguments(method, error) or error)
            return None
        finally:
            self.agent = None
        if not waits:
            self._exchange.add_answer(request, value)
            return None
        activity = Activity(self._finish(request, value), agent)
        self.activities[url, number] = activity
        return activity

    async def _finish(self, request: Request, value: Any) -> None:
        _, number, url, _, name, *_ = request
        try:
            result = await value
        except BaseException as error:
            cancelled = cancellation_in(error)
            if cancelled is not None:
                ended = DeadlineExceeded(
                    f"{name} was cancelled, or its time ran out", acknowledged=True
                )
                self._exchange.add_failure(request, ended)
                raise cancelled from None
            self._fail(request, error)
        else:
            self._exchange.add_answer(request, result)
        finally:
            del self.activities[url, number]

    def _fail(self, request: Request, error: BaseException) -> None:
        if is_ctrl_c(error):
            raise error
        self._exchange.add_failure(request, self._network.reported(request[3], error))

    def handler(self, item: Call | Request) -> Order | None:
        """The number of the agent that handles a call or an answer, if there is such an agent."""
        if isinstance(item, Call):
            return None if item.activity is None else item.activity.agent.number
        try:
            return self._network.agent(item[3]).number  # type: ignore[no-any-return]
        except UnknownAgent:
            return None

    def of_lost_peers(self) -> list[tuple[str | None, int]]:
        """The calls under way of environments that take part no more."""
        if not self._exchange.irregular:
            return []
        return [key for key in self.activities if not self._exchange.reaches(key[0])]
