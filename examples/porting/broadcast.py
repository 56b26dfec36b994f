"""A port: a thousand agents, to which an array is broadcast in each step.

Every listener has a taste, which is a small image. In each step all are shown one image, say how
much they like it, and come to like such images more; the next image is drawn towards the taste of
the listener that liked the last one best. Needs numpy.

Comments that begin with "creamas:" say what this program was before its port.
"""

from typing import Any

# creamas: from creamas import CreativeAgent, Environment
#          from creamas.mp import EnvManager, MultiEnvironment
#          from creamas.util import run
#          import aiomas, pickle
import numpy as np

from creamas_sc import CreativeAgent, Environment, aiomas
from creamas_sc.mp import EnvManager, MultiEnvironment
from creamas_sc.util import run

AGENTS = 1000
SIZE = 16
STEPS = 5
Image = np.ndarray[Any, Any]

# creamas: def image_serializer():
#              return np.ndarray, pickle.dumps, pickle.loads
#          It was among the extra_serializers of the environment and of all slaves. Arrays travel
#          without; left where it was, it would be ignored with a warning.


class Listener(CreativeAgent):
    """Likes images like those that it has seen."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # creamas: np.random.random((SIZE, SIZE)), other numbers in each run. An agent has a
        #          generator of its own, which depends on the simulation's seed.
        self.taste: Image = self.numpy_rng.random((SIZE, SIZE))

    @aiomas.expose
    async def act(self, image: Image) -> float:
        liking = 1 - float(np.abs(image - self.taste).mean())
        # As in creamas, agents of one slave share the array that arrived: it must not be changed.
        self.taste = self.taste + 0.2 * (image - self.taste)
        return liking

    @aiomas.expose
    def get_taste(self) -> Image:
        return self.taste


# creamas: if __name__ == "__main__": around all that follows. Slaves load the script up to its
#          first call into creamas_sc, so it needs no guard.
# creamas: menv = MultiEnvironment(("localhost", 5555), Environment, codec=aiomas.MsgPack,
#          extra_serializers=[image_serializer]), and at the end menv.close(). A with block closes
#          it, whatever happens in it.
with MultiEnvironment(("localhost", 0), Environment, codec=aiomas.MsgPack, seed=1) as menv:
    # creamas: and run(menv.wait_slaves(30)). When spawn_slaves returns, the slaves are there.
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
    # creamas: for _ in range(AGENTS): run(menv.spawn("broadcast:Listener")). That still works, and
    #          spawn_n, which creamas has too, takes a hundredth of the time.
    for manager in menv.addrs:
        run(menv.spawn_n(Listener, AGENTS // 2, addr=manager))
    agents = menv.get_agents()

    image: Image = np.random.default_rng(1).random((SIZE, SIZE))
    for step in range(1, STEPS + 1):
        likings = run(menv.trigger_all(image))
        best = agents[likings.index(max(likings))]
        print(f"step {step}: {len(likings)} listeners like it {sum(likings) / len(likings):.3f}")
        favourite = run(menv.connect(best))
        image = (image + run(favourite.get_taste())) / 2

    # creamas: for addr in agents: tastes[addr] = run(run(menv.env.connect(addr)).get_taste())
    tastes = run(menv.gather("get_taste"))
    spread = np.std(list(tastes.values()), axis=0).mean()
    print(f"the tastes of {len(tastes)} listeners differ by {spread:.3f}")
