"""The close of a multi-environment, in an order and with bounds that leave nothing behind.

1. No slave is started or restarted any more.
2. The user's `save_info` runs, for as long as it takes; if the close is cancelled already, within
   the grace period.
3. The slaves are stopped, then their supervisor; then the master environment is closed.

A multi-environment that nobody refers to any more, a notebook's that another one has replaced say,
is closed as well, in the background, if slaves were started. What lives on its loop refers to it
weakly, so that Python can tell.

Steps 2 and 3 are shielded from cancellation where they are bounded, so that a cancelled close still
closes everything. What failed to save or close is raised when all is closed. A second call of
`close` waits for the first one and returns its report.
"""

from __future__ import annotations

import gc
import logging
import math
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from copy import copy
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import anyio
import sniffio
import trio

from creamas_sc.core.environment import Environment
from creamas_sc.errors import AgentError, AgentErrors, NoSlaves, SlaveLost, first_error
from creamas_sc.foreign import printable
from creamas_sc.mp.observer import Observer
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.reports import StopReport
from creamas_sc.results import recordings
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.signals import install_signal_handling
from creamas_sc.runtime.timeouts import GRACE_SECONDS

if TYPE_CHECKING:
    from creamas_sc.mp.multienvironment import MultiEnvironment

log = logging.getLogger(__name__)

# Those that are being closed because nobody refers to their multi-environments.
_abandoned: set[Closer] = set()


class Closer(Observer):
    """Closes one multi-environment: when it is asked to, or when the restart policy says so.

    Args:
        menv: Its `save_info` is called.
        env: The master environment.
        slaves: Observed by this object until a host attaches another observer.

    Attributes:
        report: Made when the close begins, complete once ``closed`` is set.
        recording: Closed last; None if nothing is recorded.
        exits: What `enter` leads to at the end of an ``async with``.
    """

    recording: Any = None

    def __init__(self, menv: MultiEnvironment, env: Environment, slaves: SlavePool) -> None:
        self.report: StopReport | None = None
        self.closed = trio.Event()
        self.exits = AsyncExitStack()
        self._ref = weakref.ref(menv)
        self._abandoned: MultiEnvironment | None = None
        self._env, self._slaves = env, slaves
        slaves.observe(self)

    @property
    def _menv(self) -> MultiEnvironment | None:
        return self._abandoned or self._ref()

    def check_open(self) -> None:
        """Raise the error of a call that comes too late: when a close has begun."""
        if self._slaves.end_cause is not None:
            raise copy(self._slaves.end_cause)
        if self.report is not None:
            raise NoSlaves(f"{self._menv!r} is closed")

    def abandon(self, menv: MultiEnvironment) -> None:
        """Close, in the background, what is about to be collected; from any thread."""
        loop = self._env._loop
        if loop is None or self not in loop.closers or self.report is not None:
            return
        self._abandoned = menv  # its `save_info` is yet to be called
        _abandoned.add(self)
        loop.start_soon(self._close_abandoned)
        text = f"{menv!r} was not closed: use with, or call close()"
        warnings.warn(text, ResourceWarning, stacklevel=3, source=menv)

    async def _close_abandoned(self) -> None:
        await self._close_logged()
        self._abandoned = None
        _abandoned.discard(self)

    async def wait_abandoned(self) -> None:
        """Wait until those on this loop that nobody refers to are closed, and free their ports."""
        loop = self._env.get_loop()
        if any(other is not self for other in loop.closers):
            gc.collect()  # the frames of an earlier error may be all that refers to one
        for closer in [*_abandoned]:
            if closer._env.get_loop() is loop:
                await closer.closed.wait()

    def end_simulation(self, cause: SlaveLost) -> None:
        """Close, and have ``cause`` raised from all further calls."""
        self._slaves.end_cause = cause
        self._env.get_loop().nursery.start_soon(self._close_for, cause)

    async def _close_for(self, cause: SlaveLost) -> None:
        log.error("%s: closing: %s", self._menv, printable(str(cause)))
        await self._close_logged()

    async def _close_logged(self) -> None:
        try:
            await self.close(None)
        except Exception:  # there is no caller to raise it to
            log.exception("%s: closing failed in part", self._menv)

    async def enter(self) -> None:
        """Begin an ``async with`` of the multi-environment, which closes it."""
        install_signal_handling()
        if self._env._loop is None and sniffio.current_async_library() == "trio":
            self._env._loop = await self.exits.enter_async_context(adopt_running_loop())
        self.exits.push_async_exit(self._leave)

    async def _leave(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with behind(error, self._menv):
            await self.close_once(None)

    async def close_once(self, folder: str | None) -> StopReport | None:
        """As `close`, from any loop, which may have ended if everything is closed."""
        if not self.closed.is_set():
            await self._env.get_loop().call(self.close, folder)
        return self.report

    async def close(self, folder: str | None) -> StopReport:
        """Close everything; see `MultiEnvironment.close`."""
        if self.report is not None:
            await self.closed.wait()
            return self.report
        report = self.report = StopReport(seed=self._env.seed)
        self._slaves.refuse_starts()
        error: Exception | None = None
        try:
            await self._save(report, folder)
        except Exception as raised:
            error = AgentError.from_exception(self._env.base_url, raised)
        finally:
            try:
                with trio.CancelScope(shield=True):
                    await self._stop(report, folder)
                with anyio.move_on_after(GRACE_SECONDS, shield=True) as scope:
                    await self._env.close(folder=folder, as_coro=True)
                if scope.cancelled_caught:
                    log.error(
                        "%s: an agent's close did not end within %g s", self._menv, GRACE_SECONDS
                    )
            except AgentErrors as errors:
                report.failures.update(errors.failures)
            finally:
                if self.recording is not None:
                    error = await recordings.close(self.recording) or error
                self._env.get_loop().closers.pop(self, None)
                self.closed.set()
        if error is not None:
            raise first_error([error, *report.failures.values()])
        return report.checked()

    async def _stop(self, report: StopReport, folder: str | None) -> None:
        """Stop the slaves, and then their supervisor."""
        stopped = await self._slaves.stop(self._slaves.observer.stop_grace_seconds(), folder)
        report.extend(stopped)
        report.failures.update(stopped.failures)
        await self._slaves.aclose()

    async def _save(self, report: StopReport, folder: str | None) -> None:
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.CancelScope(shield=cancelled) as scope:
            if cancelled:
                scope.deadline = trio.current_time() + GRACE_SECONDS
            saved = None if (menv := self._menv) is None else menv.save_info(folder)
            report.saved = await saved if isawaitable(saved) else saved
        if scope.cancelled_caught:
            log.error("%s: save_info did not end within %g s", self._menv, GRACE_SECONDS)


@contextmanager
def behind(error: BaseException | None, owner: object) -> Iterator[None]:
    """Close ``owner`` in the block; what fails must not hide the ``error`` that leads to that."""
    try:
        yield
    except (AgentError, AgentErrors) as failure:
        if error is None:
            raise
        log.error("%s: %s", owner, printable(str(failure)))
