"""What is compared of two runs after each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from creamas_sc.core.digests import DIGEST_BYTES, Form, Forms
from creamas_sc.errors import AgentErrors
from creamas_sc.rpc.rounds.order import Order, sort_key


@dataclass
class Snapshot:
    """A run after a step, or before its first one.

    Attributes:
        agents: Number -> digest of the state.
        results: Number -> form of what the agent's act has returned, or raised.
        result: Form of what the step has returned, if that is not one result for each agent.
        artifacts: Maker -> forms of the artifacts that it published in the step, in order.
        hashes: Of one string, in each slave.
        generators: Of each slave and, last, of this process: see `global_generators`.
        unseen: What was not compared, in words.
    """

    agents: dict[Order, bytes] = field(default_factory=dict)
    results: dict[Order, Form] = field(default_factory=dict)
    result: Form = None
    artifacts: dict[Order | str, list[Form]] = field(default_factory=dict)
    hashes: list[int] = field(default_factory=list)
    generators: list[Mapping[str, bytes]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def add_digests(self, answer: Mapping[str, Any]) -> None:
        """Add what the manager of a slave says; see `digests_of`."""
        digests = answer["digests"]
        for at, number in enumerate(answer["numbers"]):
            self.agents[number] = digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]
        self.hashes.append(answer["hash"])
        self.generators.append(answer["generators"])
        self.unseen += answer["unseen"]

    def take_results(
        self, forms: Forms, acting: Sequence[Order], outcome: Any, addresses: Mapping[str, Order]
    ) -> None:
        """Take what a step has returned, or raised.

        Args:
            acting: The numbers of the agents that were to act, in the order of results.
            addresses: Of these agents, with their numbers.
        """
        failures: dict[Order, Form] = {}
        if isinstance(outcome, AgentErrors):
            for address, error in outcome.failures.items():
                failed = ["object", error.type_name, forms.without_addresses(error.message)]
                failures[addresses.get(address, -1)] = failed
            outcome = outcome.results
        acting = [number for number in acting if number not in failures]
        self.results = failures
        if isinstance(outcome, list) and len(outcome) == len(acting):
            self.results |= zip(acting, map(forms.of, outcome), strict=True)
        else:
            self.result = forms.of(outcome)

    def take_artifacts(
        self, forms: Forms, artifacts: Sequence[Any], names: Mapping[str, Order]
    ) -> None:
        """Take the artifacts of a step.

        Args:
            names: Of agents, with their numbers.
        """
        for artifact in artifacts:
            maker = forms.of(artifact.creator)
            number: Order | str = names.get(artifact.creator, artifact.creator)
            if type(maker) is list and maker[0] == "agent":
                number = maker[1] if len(maker) == 2 else tuple(maker[1:])
            self.artifacts.setdefault(number, []).append(forms.of(artifact))


class Unequal(NamedTuple):
    """Something that differs between two snapshots.

    Attributes:
        agent: The agent's number, or the maker's name; None for the step as a whole.
        what: "result", "artifacts", "state", "agent" (it is there in one run only).
        forms: What it is in the one and in the other; None where that is not known yet.
    """

    agent: Order | str | None
    what: str
    forms: tuple[Form, Form] | None = None


def unequal(first: Snapshot, second: Snapshot) -> list[Unequal]:
    """What differs of the first agent of which anything does, or else of the whole step."""
    numbers = first.agents.keys() | second.agents.keys()
    for number in sorted(numbers, key=sort_key):
        found = list(_of_agent(number, first, second))
        if found:
            return found
    for maker in {**first.artifacts, **second.artifacts}:
        made = first.artifacts.get(maker, []), second.artifacts.get(maker, [])
        if made[0] != made[1]:
            return [Unequal(maker, "artifacts", _listed(made))]
    if first.result != second.result or first.results != second.results:
        return [Unequal(None, "result", (first.result, second.result))]
    return []


def _of_agent(number: Order, first: Snapshot, second: Snapshot) -> Iterator[Unequal]:
    there = number in first.agents, number in second.agents
    if there[0] != there[1]:
        yield Unequal(number, "agent", there)
        return
    results = first.results.get(number), second.results.get(number)
    if results[0] != results[1]:
        yield Unequal(number, "result", results)
    made = first.artifacts.get(number, []), second.artifacts.get(number, [])
    if made[0] != made[1]:
        yield Unequal(number, "artifacts", _listed(made))
    if first.agents[number] != second.agents[number]:
        yield Unequal(number, "state")


def _listed(made: tuple[list[Any], list[Any]]) -> tuple[Form, Form]:
    return ["items", "list", *made[0]], ["items", "list", *made[1]]
