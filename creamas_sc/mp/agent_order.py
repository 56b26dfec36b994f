"""The order of all slaves' agents, by their numbers, where calls go in rounds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.rounds.order import Order, sort_key


class AgentOrder:
    """Knows the agents' numbers, which the slaves send.

    Args:
        network: The master environment's.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        # The numbers of the slaves' agents, and the positions of these in ascending order.
        self._ordered: list[list[Order]] = []
        self._order: list[int] = []

    def results(
        self, slaves: Sequence[Slave], results: list[Any], without: Collection[str]
    ) -> list[Any]:
        """Put results that are in the order of slaves into that of the agents' numbers.

        Args:
            without: Addresses of agents that have none.
        """
        known = [self._network.steps.numbers.get(slave.base_url, []) for slave in slaves]
        if without or known != self._ordered:
            numbers = [
                number
                for slave, each in zip(slaves, known, strict=True)
                for at, number in enumerate(each, 1)
                if not without or f"{slave.base_url}{at}" not in without
            ]
            order = sorted(range(len(numbers)), key=lambda at: sort_key(numbers[at]))
            if without:
                return [results[at] for at in order] if len(order) == len(results) else results
            self._ordered, self._order = known, order
        # Else a subclass has a ``trigger_all`` of its own, with other results.
        if len(self._order) == len(results):
            return [results[at] for at in self._order]
        return results

    def sort(self, items: list[Any]) -> list[Any]:
        """Put agents of all slaves in the order of their numbers, if calls go in rounds.

        Args:
            items: Addresses, proxies, or pairs that begin with an address.
        """
        if self._network.steps.in_rounds:
            items.sort(key=lambda item: self.number_at(_address_of(item)))
        return items

    def number_at(self, addr: str) -> tuple[float, ...]:
        """The number of the agent at an address, to sort by."""
        number = self._network.steps.number_at(addr)
        return (math.inf,) if number is None else sort_key(number)


def merged(numbers: Iterable[Mapping[str, Order]]) -> dict[str, Order]:
    """The numbers of several slaves' agents as one dict, in ascending order."""
    items = chain.from_iterable(each.items() for each in numbers)
    return dict(sorted(items, key=lambda item: sort_key(item[1])))


def _address_of(item: Any) -> str:
    if isinstance(item, (str, tuple)):
        return item if isinstance(item, str) else item[0]
    return item.addr  # type: ignore[no-any-return]
