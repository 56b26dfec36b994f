"""One step of all slaves' agents: what each did, who failed, and who was late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from creamas_sc.core.step_loop import UNLIMITED, step_limit
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    DeadlineExceeded,
    StepOverran,
    agent_errors,
    step_overran,
)
from creamas_sc.mp.manager_calls import Answer, ManagerCalls
from creamas_sc.mp.slave_pool import Slave

__all__ = ["SILENT_SECONDS", "Step", "take_turn"]

# What a slave has to answer once a step's time is up; then it counts as silent.
SILENT_SECONDS = 0.4


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

    Attributes:
        silent: The slaves that did not answer in the step's time.
    """

    def __init__(self, managers: ManagerCalls) -> None:
        self.limit = step_limit.get()
        self.silent: list[Slave] = []
        self._managers = managers
        self._failures: dict[str, AgentError] = {}
        self._late: dict[str, list[str]] = {}

    async def take(
        self, slaves: Sequence[Slave], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[list[Any]]:
        """Make the slaves' agents act; the results of those that did, of each slave."""
        method, last_seconds = "trigger_all", None
        if self.limit is not UNLIMITED:
            left = max(self.limit.deadline - trio.current_time(), 0.0)
            method, args, last_seconds = "trigger_all_within", (left, *args), left + SILENT_SECONDS
        return await self._managers.call_all(
            slaves, method, args, kwargs, answered=self._answered, last_seconds=last_seconds
        )

    def _answered(self, slave: Slave, answer: Answer) -> list[Any]:
        try:
            return self._managers.decoded(slave, answer)  # type: ignore[no-any-return]
        except AgentErrors as errors:
            self._failures.update(errors.failures)
            return errors.results
        except StepOverran as error:
            self._failures.update(error.failures)
            self._late[slave.address] = error.addresses
            return error.results
        except DeadlineExceeded:
            if self.limit is UNLIMITED:
                raise
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
