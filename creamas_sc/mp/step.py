"""One step of the agents of all slaves: what each returned, which failed, and which were late.

A step with a limit ends in three stages: each slave cancels, when the time is up, the acts that go
on and answers with what was done; a slave whose answer is not there `SILENT_SECONDS` later counts
as silent, with all its agents; and silent slaves are stopped if the limit asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from creamas_sc.core.step_loop import UNLIMITED, StepLimit
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    DeadlineExceeded,
    StepOverran,
    agent_errors,
    step_overran,
)
from creamas_sc.mp.manager_calls import ManagerCalls
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.restarts.journal import SlaveJournal
from creamas_sc.restarts.slave import Slave
from creamas_sc.runtime.coroutines import at_once

__all__ = ["SILENT_SECONDS", "take_step", "wait_for_turn"]

# How long a slave may take to answer once a step's time is up; then it counts as silent.
SILENT_SECONDS = 0.4


async def wait_for_turn(lock: trio.Lock, limit: StepLimit) -> None:
    """Acquire the step lock in the step's time.

    Raises:
        DeadlineExceeded: The time was up first.
    """
    with trio.move_on_at(limit.deadline):
        await lock.acquire()
        return
    raise DeadlineExceeded(
        "the step's time was up before it was its turn", acknowledged=True, may_have_run=False
    )


async def take_step(
    managers: ManagerCalls,
    pool: SlavePool,
    slaves: Sequence[Slave],
    limit: StepLimit,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> list[Any]:
    """Make the agents of ``slaves`` act once, within the limit.

    Returns:
        One value per agent, in slave and then spawn order.

    Raises:
        StepOverran: Some were late.
        AgentErrors: None were, but some failed.
        SlaveLost: A slave died.
    """
    if limit is UNLIMITED:
        answers = await managers.call_all(
            slaves, "trigger_all", args, kwargs, kept=(AgentErrors, StepOverran)
        )
    else:
        left = max(limit.deadline - trio.current_time(), 0.0)
        answers = await managers.call_all(
            slaves,
            "trigger_all_within",
            (left, *args),
            kwargs,
            kept=(AgentErrors, StepOverran, DeadlineExceeded),
            limit_seconds=left + SILENT_SECONDS,
        )
    results: list[Any] = []
    failures: dict[str, AgentError] = {}
    late: list[str] = []
    silent: list[Slave] = []
    for slave, answer in zip(slaves, answers, strict=True):
        if isinstance(answer, StepOverran):
            late += answer.addresses
        elif isinstance(answer, DeadlineExceeded):
            silent.append(slave)
            continue
        if isinstance(answer, (AgentErrors, StepOverran)):
            failures.update(answer.failures)
            answer = answer.results
        results += answer
    journals = [s.journal for s in slaves if s.journal is not None and s not in silent]
    offering = [journal for journal in journals if journal.offers_checkpoint]
    if offering:
        await at_once(SlaveJournal.take_checkpoint, offering)
    if silent and limit.kill:
        await pool.stop_silent(silent)
    if late or silent:
        addresses = [slave.address for slave in silent]
        raise step_overran(late, failures, results, silent=addresses)
    if failures:
        raise agent_errors("failed to act", failures, results)
    return results
