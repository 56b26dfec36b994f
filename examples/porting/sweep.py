"""A port: a sweep that starts and ends many multi-environments on the same ports.

Agents have an opinion between 0 and 1. In each step every agent asks an agent that it knows for
its opinion, and moves towards it if theirs are close enough (Deffuant et al. 2000). How many camps
remain depends on how close that is, which the sweep varies: one multi-environment for each value.

Comments that begin with "creamas:" say what this program was before its port.

    python examples/porting/sweep.py                     # ports 5560, 5561 and 5562
    python examples/porting/sweep.py 6000 6001 6002
"""

import sys
from itertools import pairwise

from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager

PORTS = [int(port) for port in sys.argv[1:]] or [5560, 5561, 5562]
AGENTS = 30
STEPS = 40


class Citizen(CreativeAgent):
    """Listens to those that think alike."""

    def __init__(self, environment: Environment, tolerance: float) -> None:
        super().__init__(environment)
        self.tolerance = tolerance
        # creamas: random.random(); self.rng depends on the simulation's seed.
        self.view = float(self.rng.random())

    @expose
    def get_view(self) -> float:
        return self.view

    @expose
    async def act(self) -> None:
        other = await self.random_connection()
        view = await other.get_view()
        if abs(view - self.view) <= self.tolerance:
            self.view += (view - self.view) / 2


def camps(tolerance: float) -> int:
    """Run one society; return how many camps remain."""
    master, *places = [("localhost", port) for port in PORTS]
    # creamas: menv = MultiEnvironment(master, Environment, codec=aiomas.MsgPack), at the end
    #          menv.close(), and a time.sleep for the old slaves to leave their ports. When this
    #          block ends, the processes are gone and the ports free. If somebody else has one of
    #          them, spawn_slaves fails; creamas would have called whatever listened there.
    with MultiEnvironment(master, Environment, seed=7) as menv:
        run(menv.spawn_slaves(places, Environment, EnvManager))
        for manager in menv.addrs:
            run(menv.spawn_n(Citizen, AGENTS // len(places), tolerance, addr=manager))
        agents = menv.get_agents()
        menv.create_connections({one: [(other, {}) for other in agents] for one in agents})
        for _ in range(STEPS):
            run(menv.trigger_all())
        # creamas: views = sorted(run(run(menv.env.connect(addr)).get_view()) for addr in agents)
        views = sorted(run(menv.gather("get_view")).values())
    return 1 + sum(bool(after - before > 0.05) for before, after in pairwise(views))


for percent in (5, 10, 20, 40):
    print(f"tolerance {percent / 100:.2f}: camps: {camps(percent / 100)}")
