"""What `creamas_sc.verify` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from creamas_sc.rpc.rounds.order import Order

# What was not compared is named up to this number.
MAX_NAMED = 20


class Change(NamedTuple):
    """One thing that differs between two runs.

    Attributes:
        what: "result" (of act), "artifacts" (published in the step), "state", or "agent" (it is
            there in one run only).
        path: Where in it, "" if all of it differs: of a state, the attribute and what leads on.
        values: What is there in the one run and in the other, in words; shortened.
    """

    what: str
    path: str
    values: tuple[str, str]

    def __str__(self) -> str:
        inner = f"{' ' if self.path[:1].isalpha() else ''}{self.path}"
        return f"{self.what}{inner}: {self.values[0]} and {self.values[1]}"


@dataclass(frozen=True)
class Difference:
    """The first difference between two runs.

    Attributes:
        step: The first step after which they differ; 0 if they did before the first one.
        agent: Number of the first agent that differs; of artifacts of an agent with a name that is
            gone, its name; None if it is the step as a whole.
        slaves: How many slaves the two runs have.
        changes: What differs.
        causes: What makes it differ, as far as there is evidence.
    """

    step: int
    agent: Order | str | None
    slaves: tuple[int, int]
    changes: tuple[Change, ...]
    causes: tuple[str, ...] = ()

    def __str__(self) -> str:
        when = f"in step {self.step}" if self.step else "before the first step"
        runs = f"with {self.slaves[0]} slaves and with {self.slaves[1]}"
        if self.slaves[0] == self.slaves[1]:
            runs = f"in two runs with {self.slaves[0]} slaves"
        runs = runs.replace("with 1 slaves", "with 1 slave")
        who = "the step as a whole" if self.agent is None else f"agent {_shown(self.agent)}"
        causes = self.causes or ("no cause was detected",)
        lines = [f"{who} differs {when}, {runs}"]
        lines += [f"  {change}" for change in self.changes]
        return "\n".join([*lines, *(f"  cause: {cause}" for cause in causes)])


@dataclass(frozen=True)
class Verification:
    """Whether a simulation repeats itself.

    Attributes:
        same: Whether all runs were equal in all steps.
        seed: Of all runs.
        steps: How many steps were compared.
        slaves: How many slaves each run has.
        calls: "rounds" or "free": see `MultiEnvironment`. With free calls, runs that are equal now
            need not be equal the next time.
        difference: The first one; None if there is none.
        not_compared: Attributes of agents, with classes of what in them cannot be compared.
    """

    same: bool
    seed: int
    steps: int
    slaves: tuple[int, ...]
    calls: str
    difference: Difference | None = None
    not_compared: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.same

    def __str__(self) -> str:
        runs = ", ".join(map(str, self.slaves))
        about = f"{self.steps} steps, seed {self.seed}, runs with {runs} slaves"
        lines = [f"same: {about}" if self.same else f"{self.difference}\n  of {about}"]
        if self.same and self.calls == "free":
            lines.append(
                'calls are free: that promises nothing for the next run, calls="rounds" does'
            )
        if self.not_compared:
            more = len(self.not_compared) - MAX_NAMED
            named = ", ".join(self.not_compared[:MAX_NAMED])
            lines.append(f"not compared: {named}{f' and {more} more' if more > 0 else ''}")
        return "\n".join(lines)


def _shown(agent: Order | str) -> str:
    if isinstance(agent, tuple):
        return ".".join(map(str, agent))
    return repr(agent) if isinstance(agent, str) else str(agent)
