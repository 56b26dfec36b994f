"""Agents' places in the order of spawning, by which everything is ordered in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

# An agent's place in the order of spawning; of an agent that another one made, a path from there.
Order: TypeAlias = int | tuple[int, ...]


def sort_key(order: Order) -> tuple[int, ...]:
    """Makes orders comparable: agents, each before those that it made."""
    return order if type(order) is tuple else (order,)  # type: ignore[return-value]


def runs_of(orders: Sequence[Order]) -> list[Any]:
    """Shorten a list of orders: ``[first, n]`` stands for n that follow each other."""
    runs: list[Any] = []
    for order in orders:
        if type(order) is tuple:
            runs.append(order)
        elif runs and type(runs[-1]) is list and sum(runs[-1]) == order:
            runs[-1][1] += 1
        else:
            runs.append([order, 1])
    return runs


def numbers_of(runs: Sequence[Any]) -> list[Order]:
    """The orders that `runs_of` has shortened."""
    orders: list[Order] = []
    for run in runs:
        if type(run) is tuple:
            orders.append(run)
        else:
            orders += range(run[0], sum(run))
    return orders


def text_of(order: Order | None) -> str:
    """An order as text, for `order_of`."""
    return "" if order is None else ".".join(map(str, sort_key(order)))


def order_of(text: str) -> Order | None:
    """The order that `text_of` has written."""
    order = tuple(map(int, text.split("."))) if text else ()
    return order if len(order) > 1 else (order[0] if order else None)
