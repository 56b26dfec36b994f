"""The artifacts that arrive from slaves, in an order that no timing decides."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from creamas_sc.core.artifact import Artifact
from creamas_sc.foreign import is_ctrl_c, shown
from creamas_sc.rpc.rounds.order import Order, sort_key

if TYPE_CHECKING:
    from creamas_sc.mp.multienvironment import MultiEnvironment

log = logging.getLogger(__name__)


class ArtifactInbox:
    """Adds artifacts to a multi-environment: at once, or in order at the end of a step.

    Attributes:
        of_step: By base URL, those kept back until `end_step`; None outside a step.
    """

    def __init__(self, menv: MultiEnvironment) -> None:
        self._menv = menv
        self.of_step: dict[str, list[tuple[Order | None, Artifact]]] | None = None

    def take(self, url: str, number: Order | None, artifact: Artifact) -> None:
        """Take an artifact that an agent of the environment at ``url`` published.

        Args:
            number: The agent's, in a step that goes in rounds.
        """
        if self.of_step is not None:
            self.of_step.setdefault(url, []).append((number, artifact))
            return
        try:
            self._menv.add_artifact(artifact)
        except BaseException as error:  # a subclass may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            # The step and the other artifacts must not be lost because of it.
            log.exception("an artifact of %s could not be added", url)

    def end_step(self, urls: Sequence[str]) -> None:
        """Add the artifacts of the step.

        In rounds they are in the order of the agents' numbers. Those of which no number is known
        follow, those of ``urls`` first and in that order.
        """
        published, self.of_step = self.of_step or {}, None
        in_order = [(url, *each) for url in (*urls, *published) for each in published.pop(url, ())]
        in_order.sort(key=lambda each: (math.inf,) if each[1] is None else sort_key(each[1]))
        for url, number, artifact in in_order:
            self.take(url, number, artifact)


def select_artifacts(
    artifacts: Sequence[Artifact], agent_name: str | None, since: int, limit: int | None
) -> list[Artifact]:
    """See `MultiEnvironment.get_artifacts`."""
    for name, value in (("since", since), ("limit", 0 if limit is None else limit)):
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} must be an int of at least 0, not {shown(value)}")
    found = [a for a in artifacts if agent_name is None or a.creator == agent_name]
    return found[since : None if limit is None else since + limit]
