"""An experiment as a simulation of a daemon: a step of it is one run that has ended.

So all that a daemon does with simulations it does with experiments: they step without a client, are
listed, followed, paused and closed. Runs are taken by worker processes, for which a thread waits::

    trigger_all                   thread
    -----------                   ------
    begins, at the first call --> Experiment.run: gives runs to the workers
    waits                   <---- a run has ended
    returns                       goes on; where no step is wanted, as in a pause, it waits, and
                                  gives out no more runs
"""

from __future__ import annotations

from typing import Any, Final

import trio

from creamas_sc.core.environment import Environment
from creamas_sc.errors import BadValue, CreamasError
from creamas_sc.experiments.experiment import Experiment, Progress
from creamas_sc.experiments.workers import STOP_SECONDS, Workers
from creamas_sc.foreign import shown
from creamas_sc.mp import MultiEnvironment
from creamas_sc.rpc.exposed import expose
from creamas_sc.runtime.class_loading import load_object

# What is left of the time for a close, for all that comes after the runs.
_MARGIN_SECONDS: Final = 0.3


def load_experiment(name: str) -> Experiment:
    """The experiment of a TOML file, or of that name, "module:NAME".

    Raises:
        BadValue: There is none.
        LoadError: The module does not load.
    """
    if name.endswith(".toml"):
        return Experiment.from_file(name)
    found = load_object(name)
    if not isinstance(found, Experiment):
        raise BadValue(f"{name} must be an Experiment, not {shown(found)}")
    return found


class Study(MultiEnvironment):
    """Takes the runs of an experiment that are not done.

    Args:
        addr, env_cls, mgr_cls, name, env_kwargs: As of `MultiEnvironment`; it has no slaves.
        experiment: What `load_experiment` takes.
        workers: As of `Experiment.run`.
    """

    def __init__(
        self,
        addr: tuple[str, int],
        env_cls: type[Environment],
        mgr_cls: type | None = None,
        *,
        experiment: str,
        workers: int | None = None,
        **env_kwargs: Any,
    ) -> None:
        super().__init__(addr, env_cls, mgr_cls, **env_kwargs)
        self._experiment = load_experiment(experiment)
        self._workers = Workers(self._experiment.workers(workers))
        self._report: Progress | None = None
        self._error: Exception | None = None
        self._send, self._ended = trio.open_memory_channel[Progress](0)
        self._begun = False

    @expose
    def runs_left(self) -> list[int]:
        """How many runs are not done, and how many there are."""
        return [self._experiment.left, self._experiment.total]

    async def trigger_all(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Wait until one more run has ended; returns how far the experiment is.

        Raises:
            CreamasError: There are no more, or the experiment cannot be run.
        """
        if not self._begun:
            self._begun = True
            self.get_loop().nursery.start_soon(self._run)
        try:
            self._report = await self._ended.receive()
        except trio.EndOfChannel:
            raise self._error or CreamasError("all runs of the experiment are taken") from None
        return [str(self._report)]

    async def _run(self) -> None:
        """Take all runs, in a thread."""

        def run() -> None:
            executor = self._workers
            self._experiment.run(executor.n, executor=executor, progress=self._note_end)

        with self._send:
            try:
                await trio.to_thread.run_sync(run, abandon_on_cancel=True)
            except (CreamasError, OSError) as error:
                self._error = error
            else:
                self._workers.close()

    def _note_end(self, report: Progress) -> None:
        """A run has ended; called in the thread, which waits until that is wanted."""
        trio.from_thread.run(self._send.send, report)

    async def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        """Stop the runs under way, to be taken again; how far the experiment is."""
        deadline = trio.current_effective_deadline()
        left = min(deadline - trio.current_time() - _MARGIN_SECONDS, STOP_SECONDS)
        await trio.to_thread.run_sync(self._workers.stop, max(left, 0.0))
        return None if self._report is None else str(self._report)
