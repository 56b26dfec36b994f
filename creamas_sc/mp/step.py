"""One step of all slaves' agents: what each did, who failed, and who was late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from creamas_sc.acts import UNLIMITED, step_limit
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    DeadlineExceeded,
    StepOverran,
    agent_errors,
    step_overran,
)

__all__ = ["SILENT_SECONDS", "Step", "take_turn"]

# What a slave has to answer once a step's time is up; then it counts as silent.
SILENT_SECONDS = 0.4


class Slave(Protocol):
    """Whose agents act: `creamas_sc.mp.slaves.Slave`."""

    @property
    def address(self) -> str:
        """Address of its manager."""


# Calls a method of a slave's manager, and gives it up after so many seconds.
Call = Callable[..., Awaitable[Any]]


async def take_turn(lock: trio.Lock) -> None:
    """Acquire the step lock, within the step's own limit.

    Raises:
        DeadlineExceeded: No time is left then.
    """
    limit = step_limit.get()
    if limit is UNLIMITED and not lock.locked():
        lock.acquire_nowait()
        return
    with trio.move_on_at(limit.deadline):
        await lock.acquire()
        return
    raise DeadlineExceeded(
        "the step's time was up before it was its turn", acknowledged=True, may_have_run=False
    )


class Step:
    """One step under way.

    Args:
        call: Calls a method of a slave's manager: slave, method, arguments, keyword arguments and
            ``last_seconds``, after which the call is given up.

    Attributes:
        silent: The slaves that did not answer in the step's time.
    """

    def __init__(self, call: Call) -> None:
        self.limit = step_limit.get()
        self.silent: list[Any] = []
        self._call = call
        self._failures: dict[str, AgentError] = {}
        self._late: dict[str, list[str]] = {}

    async def ask(
        self, slave: Slave, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[Any]:
        """Make a slave's agents act; the results of those that did."""
        try:
            if self.limit is UNLIMITED:
                return await self._call(slave, "trigger_all", args, kwargs)  # type: ignore[no-any-return]
            return await self._ask_within(slave, args, kwargs)
        except AgentErrors as errors:
            self._failures.update(errors.failures)
            return errors.results

    async def _ask_within(
        self, slave: Slave, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[Any]:
        left = max(self.limit.deadline - trio.current_time(), 0.0)
        try:
            return await self._call(  # type: ignore[no-any-return]
                slave,
                "trigger_all_within",
                (left, *args),
                kwargs,
                last_seconds=left + SILENT_SECONDS,
            )
        except StepOverran as error:
            self._failures.update(error.failures)
            self._late[slave.address] = error.addresses
            return error.results
        except DeadlineExceeded:
            self.silent.append(slave)
            return []

    def outcome(self, slaves: Sequence[Slave], results: list[Any]) -> list[Any]:
        """The results where all agents acted.

        Raises:
            StepOverran: Some were late.
            AgentErrors: None were, but some failed.
        """
        late = [addr for slave in slaves for addr in self._late.get(slave.address, ())]
        if late or self.silent:
            silent = [slave.address for slave in slaves if slave in self.silent]
            raise step_overran(late, self._failures, results, silent=silent)
        if self._failures:
            raise agent_errors("failed to act", self._failures, results)
        return results
