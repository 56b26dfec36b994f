"""The end of a simulation: asked for by whoever, as often as they like, and carried out once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable

import trio

from creamas_sc.errors import AgentErrors, CreamasError, EncodeError
from creamas_sc.host.error_boundary import border, in_words
from creamas_sc.mp import MultiEnvironment
from creamas_sc.reports import StopReport

__all__ = ["Closing", "fit_to_travel"]

log = logging.getLogger(__name__)

# What slaves have to save and close their agents where nobody says otherwise, in seconds.
GRACE_SECONDS = 1.0
# What they have at least, of a grace that the simulation's own saving has used up.
LEAST_SECONDS = 0.5


class Closing:
    """The close of one multi-environment.

    Attributes:
        asked: Set when the end has begun.
        cause: Why, where nobody asked for it.
        receipt: What became of the slaves, once it is done.
    """

    def __init__(self, menv: MultiEnvironment) -> None:
        self.asked = trio.Event()
        self.cause: CreamasError | None = None
        self.receipt = StopReport()
        self._menv = menv
        self._folder: str | None = None
        self._grace: float | None = None
        self._patience = trio.CancelScope()
        self._error: CreamasError | AgentErrors | None = None
        self._done = trio.Event()
        self._answering = 0
        self._answered = trio.Event()
        menv._slaves_grace = self._slaves_grace

    def ask(
        self,
        folder: str | None = None,
        grace: float | None = None,
        cause: CreamasError | None = None,
    ) -> None:
        """Ask for the end; of a second call only the ``grace`` counts.

        Args:
            folder: Passed to what saves.
            grace: Seconds from now that saving may take, the simulation's own and the slaves'
                together; None for as long as the simulation's own takes.
            cause: The error that is the reason.
        """
        if not self.asked.is_set():
            self._folder, self.cause = folder, cause
            log.info("closing%s", "" if cause is None else f": {in_words(cause)}")
        if grace is not None:
            self._grace = grace
            self._patience.deadline = min(self._patience.deadline, trio.current_time() + grace)
        self.asked.set()

    async def run_shutdown(self) -> None:
        """Close, whatever the user's own `close` does; raises nothing of its."""
        menv, address = self._menv, self._menv._env.base_url
        try:
            with self._patience, border(address):
                closed = menv.close(folder=self._folder, as_coro=True)
                if isawaitable(closed):
                    await closed
        except (CreamasError, AgentErrors) as error:
            self._error = error
        if self._patience.cancelled_caught:
            log.error("saving was cut short: it took longer than %g s", self._grace)
        try:
            # Where the user's close did not come to it, or there is none for this loop.
            with border(address):
                await MultiEnvironment.close(menv, self._folder, as_coro=True)
        except (CreamasError, AgentErrors) as error:
            self._error = self._error or error
        self._finish()

    def _finish(self) -> None:
        self.receipt = self._menv._receipt or StopReport()
        if self._error is not None:
            self.receipt.errors = (in_words(self._error),)
            log.error("closing failed in part: %s", in_words(self._error))
        self._done.set()

    def _slaves_grace(self) -> float:
        left = self._patience.deadline - trio.current_time()
        if self._grace is None:
            return GRACE_SECONDS
        return max(left, min(self._grace, LEAST_SECONDS))

    # ---- those who wait for it

    async def outcome(self) -> StopReport:
        """Wait for the end; the receipt, or what the close raised."""
        with self._answer_due():
            await self._done.wait()
            if self._error is not None:
                raise self._error
            return self.receipt

    @contextmanager
    def _answer_due(self) -> Iterator[None]:
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._answered.set()

    async def answered(self) -> None:
        """Wait until all who wait for the outcome have taken it up.

        Whoever runs next finds their answers on the way: they are sent without another wait.
        """
        await self._done.wait()
        while self._answering:
            self._answered = trio.Event()
            await self._answered.wait()


def fit_to_travel(receipt: StopReport, encode: Callable[[StopReport], object]) -> StopReport:
    """``receipt``, without what was ``saved`` where ``encode`` cannot carry that."""
    try:
        encode(receipt)
    except EncodeError as error:
        text = f"what save_info returned cannot travel: {error}"
        log.error("%s", text)
        return StopReport(receipt, None, (*receipt.errors, text))
    return receipt
