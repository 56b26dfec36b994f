"""The order in which trio runs tasks that are ready at the same time: first come, first served.

trio decides at random whether it is that or the reverse, so that nobody relies on it. A run that is
to repeat itself must.
"""

from __future__ import annotations

import random
from typing import Any

import trio


class _InOrder(random.Random):
    """What trio asks whether to reverse a batch of tasks: it does below one half.

    It takes them from the end. In tests with hypothesis it sorts the batch, and shuffles it then.
    """

    def random(self) -> float:
        return 0.0

    def shuffle(self, x: Any) -> None:
        x.reverse()


def run_tasks_in_order() -> None:
    """From now on, run tasks of this process's trio loops in the order in which they got ready."""
    scheduler = trio._core._run
    if type(scheduler._r) is not _InOrder:
        scheduler._r = _InOrder()
