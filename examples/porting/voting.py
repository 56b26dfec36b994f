"""A port: a society that votes on what it publishes.

In each step every poet makes a haiku's three line lengths as a candidate. All poets rank the
candidates, the counts of their ballots add up (Borda), and the winner is published.

Comments that begin with "creamas:" say what this program was before its port.
"""

from collections import Counter
from enum import Enum
from typing import Any, NamedTuple

from creamas_sc import Artifact, CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.mp import EnvManager
from creamas_sc.util import run

# creamas: from creamas.vote import VoteAgent, VoteEnvironment, VoteManager, VoteOrganizer. They are
#          not in creamas_sc: candidates come back from trigger_all, and ballots from gather.
POETS = 12
STEPS = 6


class School(Enum):
    """What a poet values in a poem."""

    # creamas: this and Ballot were among the extra_serializers, to be pickled. Both travel by name.
    CLASSIC = (5, 7, 5)
    TERSE = (2, 3, 2)


class Ballot(NamedTuple):
    """A poet's ranking of the candidates, by index, best first."""

    voter: str
    school: School
    ranking: tuple[int, ...]


class Poet(CreativeAgent):
    """Writes poems in the manner of its school, and votes for such poems."""

    def __init__(self, environment: Environment, school: School, name: str) -> None:
        super().__init__(environment, name=name)
        self.school = school

    @expose
    async def act(self) -> Artifact:
        lengths = tuple(line + int(self.rng.random() * 3) - 1 for line in self.school.value)
        # creamas: self.add_candidate(artifact), for the organizer to fetch it from the managers.
        return Artifact(self, lengths, domain="haiku")

    @expose
    def evaluate(self, artifact: Artifact) -> tuple[float, Any]:
        wrong = sum(abs(a - b) for a, b in zip(artifact.obj, self.school.value, strict=True))
        return -float(wrong), self.school

    @expose
    def vote(self, candidates: list[Artifact]) -> Ballot:
        def merit(index: int) -> float:
            value: float = self.evaluate(candidates[index])[0]
            return value

        ranking = sorted(range(len(candidates)), key=merit, reverse=True)
        return Ballot(self.name, self.school, tuple(ranking))


def elect(candidates: list[Artifact], ballots: list[Ballot]) -> Artifact:
    """Return the candidate with the highest Borda count; the first of several."""
    points: Counter[int] = Counter()
    for ballot in ballots:
        for place, index in enumerate(ballot.ranking):
            points[index] += len(candidates) - place
    winner = candidates[points.most_common(1)[0][0]]
    for ballot in ballots:
        winner.add_eval(ballot.voter, ballot.ranking.index(candidates.index(winner)))
    return winner


with MultiEnvironment(("localhost", 0), Environment, seed=3) as menv:
    # creamas: run(menv.spawn_slaves(slave_addrs, VoteEnvironment, VoteManager, slave_kwargs))
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    for number in range(POETS):
        school = School.TERSE if number % 3 == 0 else School.CLASSIC
        run(menv.spawn(Poet, school, f"poet {number}"))

    for step in range(1, STEPS + 1):
        candidates = run(menv.trigger_all())
        # creamas: organizer.gather_candidates(), organizer.gather_votes() and
        #          organizer.compute_results(vote_mean)
        ballots = run(menv.gather("vote", candidates))
        winner = elect(candidates, list(ballots.values()))
        menv.add_artifact(winner)
        print(f"step {step}: {len(ballots)} votes for {winner.creator}'s {winner.obj}")
    print(f"{len(menv.artifacts)} poems were published")
