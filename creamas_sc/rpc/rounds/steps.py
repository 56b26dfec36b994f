"""The steps of one environment that go in rounds, one at a time, and the agents' numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import ConnectionLost, CreamasError, HandshakeError
from creamas_sc.rpc.addresses import locate
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.rounds.driver import Rounds
from creamas_sc.rpc.rounds.exchange import Exchange
from creamas_sc.rpc.rounds.frames import (
    CANCEL_EVENT,
    LEAVES,
    ROUND_EVENT,
    TIME_UP,
    Frames,
    event_name,
)
from creamas_sc.rpc.rounds.order import Order, numbers_of, runs_of
from creamas_sc.rpc.rounds.plan import TAKES_PER_STEP, Plan
from creamas_sc.runtime.coroutines import gather
from creamas_sc.wire.codec import Payload

if TYPE_CHECKING:
    from creamas_sc.rpc.network import Network

log = logging.getLogger(__name__)

NUMBERS_EVENT = "numbers"
OBSERVED_EVENT = "observed"
# Why a step may not repeat itself; what follows is its number.
UNREPEATABLE_EVENT = "not repeatable"
# So many calls or agents are named.
MAX_NAMED = 20


class Steps:
    """The steps of a network's environment.

    Attributes:
        frames: What has arrived for them.
        rounds: The one that is under way.
        in_rounds: Whether those of an environment alone go in rounds; of a master, whether those
            of its slaves do.
        numbers: Of a master: by base URL of a slave, the numbers of its agents.
        noted: Why the step that is under way here may not repeat itself.
        why: Of a master: the same of the last step, as all who take part say.
        taken: Of a master: the number of the last step.
        timed_out: The number of the last step that was left here as its time was up.
        master: The connection to the master, if it has connected.
        observed_sink: Of a master: gets the base URL of a slave and what was observed there; None
            where nothing is recorded.
    """

    observed_sink: Callable[[str, Any], None] | None = None

    def __init__(self, network: Network) -> None:
        self.frames = Frames()
        self.rounds: Rounds | None = None
        self.in_rounds = True
        self.numbers: dict[str, list[Order]] = {}
        self.noted: dict[str, None] = {}
        self.why: dict[str, None] = {}
        self.taken = 0
        self.timed_out = -1
        self.master: Connection | None = None
        self._network = network
        self._numbers_sent = 0

    @contextmanager
    def take(self, plan: Plan | None) -> Iterator[Rounds | None]:
        """Have agents' calls go in rounds in the block, if they are to and no other step does.

        Args:
            plan: A multi-environment's, for its step; None for a step of this environment alone.
        """
        if plan is not None:
            # A second time in one step of the multi-environment has the next number.
            step = max(plan.step, self.frames.step)
            # A connection that was opened in a step may have kept its plan.
            plan = plan._replace(step=step) if step < plan.step + TAKES_PER_STEP else None
        elif self.in_rounds and self.master is None:
            plan = Plan(self.frames.step)
        if self.rounds is not None or plan is None:
            yield None
            return
        exchange = Exchange(self._network, plan)
        rounds = self.rounds = Rounds(self._network, exchange)
        try:
            yield rounds
        finally:
            self.rounds = None
            rounds.under_way = False
            step = self.frames.step
            exchange.leave(rounds.over)
            self._report(step, rounds)

    def _report(self, step: int, rounds: Rounds) -> None:
        """Log why a step may not repeat itself, and tell the master with the next answer."""
        noted, self.noted = self.noted, {}
        if rounds.held_up:
            held_up = named(list(dict.fromkeys(rounds.held_up)))
            text = f"a round ended while {held_up} waited for something that no call brought"
            log.warning("%s: the step may not repeat itself", text)
            noted[text] = None
        if self.taken:  # by the master, which takes part
            self.why |= noted
        elif noted:
            self._post(f"{UNREPEATABLE_EVENT}:{step // TAKES_PER_STEP}", list(noted))

    def note_outside(self, address: str, method: str) -> None:
        """A call comes from outside the step that is under way."""
        if len(self.noted) < MAX_NAMED:
            self.noted[f"{method} of {address} was called from outside the step"] = None

    async def connect(self, peers: Iterable[str]) -> dict[str, CreamasError]:
        """Connect to other environments; base URL -> why, for those that cannot be reached."""
        endpoint, here = self._network.endpoint, self._network.base_url
        failed: dict[str, CreamasError] = {}

        async def connect(url: str) -> None:
            try:
                await endpoint.connection(url)
            except (ConnectionLost, HandshakeError) as error:
                failed[url] = error

        missing = [url for url in peers if url != here and endpoint.link(url) is None]
        if missing:
            await gather(connect, missing)
        return failed

    def begin(self, step: int) -> None:
        """Take no part in the steps before ``step``, and tell those who go on with one."""
        for url, old in self.frames.begin(step):
            link = self._network.endpoint.link(url)
            if link is not None:
                self._post_leave(link, old)

    def _post_leave(self, link: Connection, step: int) -> None:
        """Say that this environment has left a step, to a peer that may not know it yet.

        It may have had no connection then; if the time is up here, it is up there too.
        """
        link.post(event_name(step), TIME_UP if step == self.timed_out else LEAVES)

    @property
    def number(self) -> Order | None:
        """The number of the agent whose code runs now, as part of a step."""
        agent = None if self.rounds is None else self.rounds.agent
        return None if agent is None else agent.number

    def take_event(self, link: Connection, name: str, payload: Payload) -> bool:
        """Take an event of a peer; whether it is one of steps."""
        if name.startswith(ROUND_EVENT):
            step = self.frames.take(link.name, name, payload)
            if step is not None:
                self._post_leave(link, step)
        elif name.startswith(CANCEL_EVENT):
            step, number = map(int, name.split(":")[1:])
            if self.rounds is not None and step == self.frames.step:
                self.rounds.cancel_served(link.name, number)
        elif name.startswith(UNREPEATABLE_EVENT):
            if int(name.partition(":")[2]) == self.taken:
                self.why.update(dict.fromkeys(self._network.codec.decode(payload)))
        elif name == NUMBERS_EVENT:
            self.numbers[link.name] = numbers_of(self._network.codec.decode(payload))
        elif name == OBSERVED_EVENT:
            if self.observed_sink is not None:
                self.observed_sink(link.name, self._network.codec.decode(payload))
        else:
            return False
        return True

    def number_at(self, address: str) -> Order | None:
        """The number of the agent at an address; None if it is not one of a slave's.

        Raises:
            ValueError: The address is malformed.
        """
        url, position = locate(address)
        numbers = self.numbers.get(url, ())
        return numbers[position - 1] if 0 < position <= len(numbers) else None

    def send_numbers(self, agents: Sequence[Any]) -> None:
        """Send the numbers of the agents to the master, if there is one and it lacks them.

        Args:
            agents: All of the environment but the manager.
        """
        if self.master is not None and len(agents) != self._numbers_sent:
            self._numbers_sent = len(agents)
            self._post(NUMBERS_EVENT, runs_of([agent.number for agent in agents]))

    def send_observed(self, observed: Any) -> None:
        """Send what was observed of the agents in a step to the master, if there is one."""
        self._post(OBSERVED_EVENT, observed)

    def _post(self, name: str, value: Any) -> None:
        """Send the master an event, with the next answer, if there is a master."""
        if self.master is not None:
            self.master.post(name, self._network.codec.encode(value), with_answer=True)


def named(addresses: Sequence[str]) -> str:
    """Agents in words: the first ones by their addresses, and how many more there are."""
    more = len(addresses) - MAX_NAMED
    return ", ".join(addresses[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
