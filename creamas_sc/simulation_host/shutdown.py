"""The end of a simulation: requested any number of times, carried out once.

::

    request() by a client, the supervisor, the manager, the policy, ...   -> requested is set
        the host's main task: run() -> the user's close -> our own close  -> done
            clients in outcome() get the report or the error
                the host's main task: wait_answered(), then it exits

A time limit counts from the request: it bounds the simulation's own saving, and the slaves get what
is left of it, but at least `LEAST_SECONDS`. A later request can only shorten it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

import trio

from creamas_sc.errors import AgentErrors, CreamasError, EncodeError
from creamas_sc.mp import MultiEnvironment
from creamas_sc.reports import StopReport
from creamas_sc.runtime.timeouts import GRACE_SECONDS
from creamas_sc.simulation_host.error_boundary import error_boundary, error_text

log = logging.getLogger(__name__)

# What slaves have at least, of a grace period that the simulation's own saving has used up.
LEAST_SECONDS = 0.5


class Shutdown:
    """The shutdown of one multi-environment.

    Args:
        address: Of the master environment, for errors of the user's code.
        post: Posts the event "closing".

    Attributes:
        requested: Set when the end has begun.
        cause: The error that is the reason; None if somebody asked for the end.
        report: How the slaves ended, once it is done.
    """

    def __init__(
        self, menv: MultiEnvironment, address: str, post: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.requested = trio.Event()
        self.cause: CreamasError | None = None
        self.report = StopReport()
        self._menv = menv
        self._address = address
        self._post = post
        self._folder: str | None = None
        self._grace: float | None = None
        self._saving = trio.CancelScope()
        self._error: CreamasError | AgentErrors | None = None
        self._done = trio.Event()
        self._answering = 0
        self._answered = trio.lowlevel.ParkingLot()

    def request(
        self,
        folder: str | None = None,
        grace: float | None = None,
        cause: CreamasError | None = None,
    ) -> None:
        """Request the end; of a second request only the ``grace`` counts.

        Args:
            folder: Passed to what saves.
            grace: Seconds from now that saving may take, the simulation's own and the slaves'
                together; None for as long as the simulation's own takes.
            cause: The error that is the reason.
        """
        if not self.requested.is_set():
            self._folder, self.cause = folder, cause
            log.info("closing%s", "" if cause is None else f": {error_text(cause)}")
            self._post("closing", {"cause": "closed" if cause is None else str(cause)})
            self.requested.set()
        if grace is not None:
            self._grace = grace
            self._saving.deadline = min(self._saving.deadline, trio.current_time() + grace)

    def slaves_grace_seconds(self) -> float:
        """What slaves may take to save and close their agents, from now on."""
        if self._grace is None:
            return GRACE_SECONDS
        left = self._saving.deadline - trio.current_time()
        return max(left, min(self._grace, LEAST_SECONDS))

    async def run(self) -> None:
        """Close, even if the user's own `close` fails; its errors are for `outcome`."""
        menv = self._menv
        try:
            with self._saving, error_boundary(self._address):
                closed = menv.close(folder=self._folder, as_coro=True)
                if isawaitable(closed):
                    await closed
        except (CreamasError, AgentErrors) as error:
            self._error = error
        if self._saving.cancelled_caught:
            log.error("saving was cut short: it took longer than %g s", self._grace)
        try:
            # The user's own close may not have called this one, or may have failed before.
            with error_boundary(self._address):
                await MultiEnvironment.close(menv, self._folder, as_coro=True)
        except (CreamasError, AgentErrors) as error:
            self._error = self._error or error
        self.report = await MultiEnvironment.close(menv, as_coro=True)
        if self._error is not None:
            if not self._in_receipts(self._error):
                self.report.errors = (error_text(self._error),)
            log.error("closing failed in part: %s", error_text(self._error))
        self._done.set()

    def _in_receipts(self, error: CreamasError | AgentErrors) -> bool:
        """Whether the slaves' receipts say all that ``error`` does."""
        known = "\n".join(text for slave in self.report for text in slave.errors)
        failures = error.exceptions if isinstance(error, AgentErrors) else [error]
        return all(str(failure) in known for failure in failures)

    async def outcome(self) -> StopReport:
        """Wait for the end; return the report, or raise what the close raised."""
        self._answering += 1
        try:
            await self._done.wait()
            if self._error is not None:
                raise self._error
            return self.report
        finally:
            self._answering -= 1
            self._answered.unpark_all()

    async def wait_answered(self) -> None:
        """Wait until every task in `outcome` has gone on.

        Their answers are sent before the next task runs: nothing else needs to be waited for.
        """
        await self._done.wait()
        while self._answering:
            await self._answered.park()


def fit_to_travel(report: StopReport, encode: Callable[[StopReport], object]) -> StopReport:
    """``report``, without what was ``saved`` if ``encode`` cannot carry that."""
    try:
        encode(report)
    except EncodeError as error:
        text = f"what save_info returned cannot travel: {error}"
        log.error("%s", text)
        return StopReport(report, None, (*report.errors, text), report.seed)
    return report
