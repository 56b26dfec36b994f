"""The report on a stop of slaves, from what the supervisor says of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from creamas_sc.foreign import printable
from creamas_sc.reports import StopReport
from creamas_sc.restarts.slave import Slave
from creamas_sc.supervisor_client.messages import StopResult

log = logging.getLogger(__name__)


def stop_report(
    slaves: Sequence[Slave],
    results: Mapping[str, StopResult],
    seed: int | None,
    saving: bool,
    warn: Callable[[str], None],
) -> StopReport:
    """How each slave ended, and what failed.

    Args:
        results: By slot, of those that were stopped.
        saving: Whether they had a folder to save into.
        warn: Gets a text for each that did not end in order.
    """
    report = StopReport([slave.stop_report(results.get(slave.slot)) for slave in slaves], seed=seed)
    for receipt in report:
        if not receipt.graceful or receipt.errors:
            warn(f"Could not stop {receipt.address} in order: {receipt}")
    for slave in slaves:
        for failure in slave.close_failures(results.get(slave.slot), saving):
            report.failures[failure.address] = failure
    for failure in report.failures.values():  # what was not saved must not be overlooked
        log.error("%s", printable(str(failure)))
    return report
