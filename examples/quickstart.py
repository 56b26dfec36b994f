"""How to use a MultiEnvironment, in the order that creamas.mp's reference page gives.

Two slave processes hold three agents each. In each step, every agent invents a number and asks an
agent that it is connected to, in either process, for its opinion. If that agent likes the number,
it is published.
"""

from typing import Any

import creamas_sc
from creamas_sc import Artifact, CreativeAgent, Environment, expose
from creamas_sc.mp import EnvManager, MultiEnvironment
from creamas_sc.util import run


class NumberAgent(CreativeAgent):
    """An agent that likes the multiples of its favourite number."""

    def __init__(self, environment: Environment, favourite: int) -> None:
        super().__init__(environment)
        self.favourite = favourite

    @expose
    def evaluate(self, artifact: Artifact) -> tuple[float, str]:
        return float(artifact.obj % self.favourite == 0), f"is it a multiple of {self.favourite}?"

    @expose
    async def act(self) -> None:
        number = self.favourite * int(1 + 99 * self.rng.random())
        artifact = Artifact(self, number, domain=int)
        other = next(iter(self.connections))
        opinion, framing = await self.ask_opinion(other, artifact)
        artifact.add_eval(other, opinion, framing)
        if opinion > 0:
            self.publish(artifact)


# Create the multi-environment and the environment used to connect to slave environments
addr = ("localhost", 5555)
env_cls = Environment
env_kwargs: dict[str, Any] = {"codec": creamas_sc.MsgPack}
menv = MultiEnvironment(addr, env_cls, **env_kwargs)

# Define slave environments and their arguments
slave_addrs = [("localhost", 5556), ("localhost", 5557)]
slave_env_cls = Environment
slave_mgr_cls = EnvManager
n_slaves = 2
slave_kwargs = [{"codec": creamas_sc.MsgPack} for _ in range(n_slaves)]

# Spawn the actual slave environments, and wait until all of them are ready
run(menv.spawn_slaves(slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs))
run(menv.wait_slaves(10, check_ready=True))

# Spawn the agents, each into the slave with the fewest agents, and connect each to the next one
addrs = []
for favourite in (2, 3, 4, 5, 6, 7):
    _, agent_addr = run(menv.spawn(NumberAgent, favourite))
    addrs.append(agent_addr)
following = [*addrs[1:], addrs[0]]
menv.create_connections({one: [(other, {})] for one, other in zip(addrs, following, strict=True)})

# Trigger all agents to act, a few times
for _ in range(5):
    run(menv.trigger_all())

for artifact in menv.artifacts:
    print(f"{artifact.creator} published {artifact.obj}, which {', '.join(artifact.evals)} likes")
print(f"{len(menv.artifacts)} of 30 numbers were published")

# Close the environment to free the resources
menv.close()
