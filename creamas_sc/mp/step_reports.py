"""Reports of a multi-environment's steps: whether each repeats itself, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from creamas_sc.errors import AgentErrors, CreamasError, StepOverran
from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.reports import StepReport
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.rounds.steps import named


class StepReports:
    """Makes the reports.

    Args:
        network: The master environment's, to which the slaves say what they know.
        slaves: Those that act.

    Attributes:
        last: Of the last step; None before the first one.
    """

    def __init__(self, network: Network, slaves: SlavePool) -> None:
        self.last: StepReport | None = None
        self._steps = network.steps
        self._slaves = slaves
        self._restarts = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Report the step that is taken in the block, to the observer too."""
        steps = self._steps
        steps.why = {}
        try:
            yield
        except AgentErrors:  # they are the same in each run
            raise
        except StepOverran as error:
            late = named(error.addresses)
            steps.why[f"the step's time was up before these had acted: {late}"] = None
            raise
        except CreamasError as error:
            steps.why[str(error)] = None
            raise
        except BaseException:
            steps.why["the step was cut short"] = None
            raise
        finally:
            self._report()

    def _report(self) -> None:
        steps, restarts = self._steps, self._slaves.restarts
        for restart in restarts[self._restarts :]:
            steps.why[f"{restart.cause}; it was started again"] = None
        self._restarts = len(restarts)
        self.last = StepReport(None)
        if steps.in_rounds:
            self.last = StepReport(not steps.why, tuple(steps.why))
        self._slaves.observer.step_taken(self.last)
