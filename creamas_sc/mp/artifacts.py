"""The artifacts that arrive from slaves, in an order that no timing decides.

An agent may publish an artifact in two ways: its environment sends it here, and its manager may
report it to the host manager, whose `handle` adds it. The artifacts of a step are kept back until
its end. By then all that was reported in it has been added, so what is equal to it is the same,
once for each report. Artifacts thus need no identity, which would have to travel with each.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from creamas_sc.core.artifact import Artifact
from creamas_sc.foreign import is_ctrl_c, shown
from creamas_sc.rpc.rounds.order import Order, sort_key

if TYPE_CHECKING:
    from creamas_sc.mp.multienvironment import MultiEnvironment

log = logging.getLogger(__name__)

Published = tuple[str, Order | None, Artifact]


class ArtifactInbox:
    """Adds artifacts to a multi-environment: at once, or in order at the end of a step."""

    def __init__(self, menv: MultiEnvironment) -> None:
        self._menv = weakref.ref(menv)
        # By base URL, those kept back; None outside a step.
        self._of_step: dict[str, list[tuple[Order | None, Artifact]]] | None = None

    def take(self, url: str, number: Order | None, artifact: Artifact) -> None:
        """Take an artifact that an agent of the environment at ``url`` published.

        Args:
            number: The agent's, in a step that goes in rounds.
        """
        if self._of_step is not None:
            self._of_step.setdefault(url, []).append((number, artifact))
            return
        menv = self._menv()
        if menv is None:  # it was never closed, and is being closed now
            return
        try:
            menv.add_artifact(artifact)
        except BaseException as error:  # a subclass may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            # The step and the other artifacts must not be lost because of it.
            log.exception("an artifact of %s could not be added", url)

    @contextmanager
    def step(self, urls: Sequence[str]) -> Iterator[None]:
        """Keep artifacts back until the step ends, and add them then.

        In rounds they are in the order of the agents' numbers. Those of which no number is known
        follow, those of ``urls`` first and in that order. What was added in another way during the
        step is not added again.
        """
        kept: dict[str, list[tuple[Order | None, Artifact]]] = {}
        artifacts: list[Artifact] = getattr(self._menv(), "artifacts", [])
        self._of_step, before = kept, len(artifacts)
        try:
            yield
        finally:
            self._of_step = None
            published = [(url, *each) for url in (*urls, *kept) for each in kept.pop(url, ())]
            published.sort(key=lambda each: (math.inf,) if each[1] is None else sort_key(each[1]))
            for url, number, artifact in _without(published, artifacts[before:]):
                self.take(url, number, artifact)


def _without(published: list[Published], reported: Sequence[Artifact]) -> list[Published]:
    """Return ``published`` without those that were reported, too."""
    if not reported:
        return published
    try:
        counts, new = Counter(reported), []
        for each in published:
            if counts[each[2]]:
                counts[each[2]] -= 1
            else:
                new.append(each)
    except BaseException as error:  # equality may be a subclass's
        if is_ctrl_c(error):
            raise
        log.exception("artifacts that were published and reported could not be compared")
        return published
    return new


def select_artifacts(
    artifacts: Sequence[Artifact], agent_name: str | None, since: int, limit: int | None
) -> list[Artifact]:
    """See `MultiEnvironment.get_artifacts`."""
    for name, value in (("since", since), ("limit", 0 if limit is None else limit)):
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} must be an int of at least 0, not {shown(value)}")
    found = [a for a in artifacts if agent_name is None or a.creator == agent_name]
    return found[since : None if limit is None else since + limit]
