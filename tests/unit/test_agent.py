"""Agents in a fake environment: their attributes, connections and defaults."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.core.agent import Agent, CreativeAgent, missing_act
from creamas_sc.core.artifact import Artifact
from creamas_sc.logging import ObjectLogger
from creamas_sc.rpc.exposed import Proxy, expose, exposed_method


class FakeEnvironment:
    """What agents use of an environment; agents stand for their own proxies."""

    base_url = "tcp://localhost:5556/"
    _reconnected = None

    def __init__(self) -> None:
        self.agents: list[Any] = []
        self.artifacts: list[Artifact] = []

    def _register(self, agent: Any) -> int:
        self.agents.append(agent)
        return len(self.agents) - 1

    def _make_rng(self, agent: Any) -> random.Random:
        return random.Random(agent._number)

    async def connect(self, addr: str) -> Any:
        return next(agent for agent in self.agents if agent.addr == addr)

    def add_artifact(self, artifact: Artifact) -> None:
        self.artifacts.append(artifact)


class Critic(CreativeAgent):
    async def evaluate(self, artifact: Artifact) -> Any:
        return len(artifact.obj), self.name


@pytest.fixture
def env() -> Any:
    return FakeEnvironment()


@pytest.fixture
def agent(env: Any) -> CreativeAgent:
    return CreativeAgent(env)


@pytest.mark.parametrize("cls", [Agent, CreativeAgent])
def test_an_agent_needs_an_environment(cls: Any) -> None:
    with pytest.raises(TypeError, match=f"{cls.__name__} needs an Environment.*not str"):
        cls("localhost")


def test_addresses_count_from_zero(env: Any) -> None:
    assert [Agent(env).addr, CreativeAgent(env).addr] == [
        "tcp://localhost:5556/0",
        "tcp://localhost:5556/1",
    ]


def test_the_address_follows_a_bind_to_another_port(env: Any, agent: CreativeAgent) -> None:
    assert agent.addr == agent.name == "tcp://localhost:5556/0"
    env.base_url = "tcp://localhost:40001/"
    agent._addr = None
    assert agent.addr == agent.name == "tcp://localhost:40001/0"


def test_an_agent_knows_its_environment_and_class(env: Any) -> None:
    agent = Critic(env)
    assert agent.env is env
    assert agent.qualname() == f"{__name__}:Critic"
    assert CreativeAgent(env).qualname() == "creamas_sc.core.agent:CreativeAgent"


def test_names(env: Any) -> None:
    assert CreativeAgent(env, name="ada").name == "ada"
    assert CreativeAgent(env, name="").name == "tcp://localhost:5556/1"
    agent = CreativeAgent(env)
    assert agent.sanitized_name() == "tcp_localhost_5556_2"
    agent.name = "bob"
    assert agent.name == agent.sanitized_name() == "bob"
    assert repr(agent) == str(agent) == "CreativeAgent(bob)"
    assert repr(Agent(env)) == "Agent(tcp://localhost:5556/3)"


def test_a_name_must_be_a_string(env: Any, agent: CreativeAgent) -> None:
    with pytest.raises(TypeError, match="name must be a str, not int"):
        CreativeAgent(env, name=7)  # type: ignore[arg-type]
    assert env.agents == [agent], "the refused agent must not have a place"


def test_resources_are_capped_and_never_negative(env: Any) -> None:
    agent = CreativeAgent(env, resources=10)
    assert (agent.max_res, agent.cur_res) == (10, 10)
    agent.cur_res = 4
    assert agent.cur_res == 4
    agent.cur_res = 11
    assert agent.cur_res == 10
    agent.cur_res = -1
    assert agent.cur_res == 0
    agent.refill()
    assert agent.cur_res == 10
    agent.max_res = 3
    assert (agent.max_res, agent.cur_res) == (3, 3)
    agent.max_res = 5
    assert (agent.max_res, agent.cur_res) == (5, 3)
    agent.max_res = -2
    assert (agent.max_res, agent.cur_res) == (0, 0)
    assert CreativeAgent(env, resources=-1).max_res == 0
    assert CreativeAgent(env, resources=0.5).cur_res == 0.5


def test_without_a_limit_no_resources_are_counted(agent: CreativeAgent) -> None:
    assert agent.max_res == 0
    agent.cur_res = 5
    assert agent.cur_res == 0


def test_containers_belong_to_one_agent(env: Any) -> None:
    one, other = CreativeAgent(env), CreativeAgent(env)
    one.A.append(Artifact(one, 1))
    one.D["other"] = [2]
    one.connections["tcp://localhost:5557/1"] = {}
    assert len(one.A) == len(one.D) == len(one.connections) == 1
    assert not other.A
    assert not other.D
    assert not other.connections


def test_add_artifact(agent: CreativeAgent) -> None:
    artifact = Artifact(agent, 1)
    agent.add_artifact(artifact)
    assert agent.A == [artifact]
    with pytest.raises(TypeError, match="artifact must be an Artifact, not 1"):
        agent.add_artifact(1)  # type: ignore[arg-type]


def test_publish(env: Any, agent: CreativeAgent) -> None:
    artifact = Artifact(agent, 1)
    agent.publish(artifact)
    assert env.artifacts == [artifact]
    assert agent.A == [], "to publish is not to keep"
    with pytest.raises(TypeError, match="artifact must be an Artifact, not"):
        agent.publish("1")  # type: ignore[arg-type]
    assert env.artifacts == [artifact]


def test_connections(env: Any, agent: CreativeAgent) -> None:
    first, second = "tcp://localhost:5556/1", "tcp://localhost:5557/1"
    assert agent.get_connections() == []
    assert agent.get_connections(data=True) == {}
    assert agent.add_connection(first, attitude=0.5) is True
    assert agent.add_connection(first, attitude=0.9) is False
    assert agent.add_connections([(first, {}), (second, {"since": 3})]) == [False, True]
    assert agent.connections == {first: {"attitude": 0.5}, second: {"since": 3}}
    assert agent.get_connections() == [first, second]
    assert agent.get_connections(data=True) == agent.connections
    assert agent.remove_connection(first) == {"attitude": 0.5}
    assert agent.remove_connection(first) is None
    agent.clear_connections()
    assert agent.connections == {}


def test_connections_made_together_are_those_made_one_by_one(
    env: Any, agent: CreativeAgent
) -> None:
    data = {"since": 3}
    assert agent.add_connections([("a", data), ("a", {"since": 4}), ("b", data)]) == [
        True,
        False,
        True,
    ]
    data["since"] = 5
    assert agent.connections == {"a": {"since": 3}, "b": {"since": 3}}
    for wrong in ({3: 4}, {"addr": "c"}, None):
        with pytest.raises(TypeError):
            agent.add_connections([("c", wrong)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"expected an agent's address.*not 3"):
        agent.add_connections([(3, {})])


def test_connections_made_together_go_through_an_overridden_method(env: Any) -> None:
    class Shy(CreativeAgent):
        @expose
        def add_connection(self, addr: Any, **data: Any) -> bool:
            return addr != "b" and super().add_connection(addr, **data)

    agent = Shy(env)
    assert agent.add_connections([("a", {}), ("b", {})]) == [True, False]
    assert agent.get_connections() == ["a"]


def test_connections_handed_out_are_a_copy(agent: CreativeAgent) -> None:
    agent.add_connection("tcp://localhost:5556/1", since=3)
    copied = agent.get_connections(data=True)
    copied["tcp://localhost:5556/1"]["since"] = 4
    copied.clear()
    assert agent.connections == {"tcp://localhost:5556/1": {"since": 3}}


def test_agents_and_proxies_stand_for_their_address(env: Any, agent: CreativeAgent) -> None:
    other, remote = CreativeAgent(env), Proxy(env, "tcp://localhost:5557/1")
    assert agent.add_connections([(other, {}), (remote, {})]) == [True, True]
    assert agent.get_connections() == [other.addr, "tcp://localhost:5557/1"]
    agent.remove_connection(other)
    assert agent.get_connections() == ["tcp://localhost:5557/1"]


@pytest.mark.parametrize("method", ["add_connection", "remove_connection"])
def test_a_connection_needs_an_address(agent: CreativeAgent, method: str) -> None:
    with pytest.raises(TypeError, match=r"expected an agent's address.*not 3"):
        getattr(agent, method)(3)


async def test_connect(env: Any, agent: CreativeAgent) -> None:
    other = CreativeAgent(env)
    assert await agent.connect(other.addr) is other


async def test_random_connection_draws_with_the_agents_rng(env: Any, agent: CreativeAgent) -> None:
    others = [CreativeAgent(env) for _ in range(20)]
    agent.add_connections([(other, {}) for other in others])
    drawn = [await agent.random_connection() for _ in range(200)]
    assert set(drawn) <= set(others)
    assert len(set(drawn)) > 10
    agent._rng = random.Random(agent._number)
    assert [await agent.random_connection() for _ in range(200)] == drawn


async def test_random_connection_takes_numpys_generators(env: Any, agent: CreativeAgent) -> None:
    numpy = pytest.importorskip("numpy")
    other = CreativeAgent(env)
    agent.add_connection(other)
    agent._rng = numpy.random.default_rng(1)
    assert await agent.random_connection() is other


async def test_random_connection_without_connections(agent: CreativeAgent) -> None:
    with pytest.raises(IndexError, match="tcp://localhost:5556/0 has no connections"):
        await agent.random_connection()


async def test_ask_opinion(env: Any, agent: CreativeAgent) -> None:
    critic = Critic(env, name="critic")
    assert await agent.ask_opinion(critic.addr, Artifact(agent, "abc")) == (3, "critic")


def test_rng_is_made_once(agent: CreativeAgent) -> None:
    assert agent.rng is agent.rng


async def test_defaults_to_override(agent: CreativeAgent) -> None:
    assert agent.evaluate(Artifact(agent, 1)) == (0.0, None)
    assert await agent.act(1, b=2) == ((1,), {"b": 2})
    assert agent.close() is None
    assert agent.close(folder="results") is None


@pytest.mark.parametrize(
    "name",
    [
        "add_connection",
        "add_connections",
        "remove_connection",
        "clear_connections",
        "get_connections",
        "evaluate",
        "act",
        "close",
    ],
)
def test_what_others_may_call(agent: CreativeAgent, name: str) -> None:
    assert exposed_method(agent, name) == getattr(agent, name)


@pytest.mark.parametrize("name", ["publish", "add_artifact", "refill", "connect", "qualname"])
def test_what_others_may_not_call(agent: CreativeAgent, name: str) -> None:
    with pytest.raises(AttributeError, match="not exposed"):
        exposed_method(agent, name)


def test_an_agent_logs_nothing_by_default(agent: CreativeAgent) -> None:
    assert agent.logger is None
    agent._log(10, "there is no handler for this")


def test_a_log_folder_makes_a_logger(env: Any, tmp_path: Path, caplog: Any) -> None:
    agent = CreativeAgent(env, name="ada", log_folder=str(tmp_path))
    assert isinstance(agent.logger, ObjectLogger)
    assert agent.logger.folder == str(tmp_path / "ada")
    agent.publish(Artifact(agent, "hello"))
    assert "ada: published ada:hello" in caplog.text
    agent.logger.close()


def test_a_logger_can_be_set(agent: CreativeAgent) -> None:
    class Heard(list[Any]):
        def log(self, level: int, message: str) -> None:
            self.append((level, message))

    agent.logger = heard = Heard()
    agent._log(20, "hello")
    assert heard == [(20, "hello")]


def test_an_unused_agent_is_small(env: Any) -> None:
    agent = CreativeAgent(env)
    assert set(vars(agent)) == {"_env", "_number"}


# ---- agents that do nothing


class Misspelt(CreativeAgent):
    def atc(self) -> None: ...


class Listens(CreativeAgent):
    def hear(self) -> None: ...


class Inherits(Listens):
    def act(self) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (Misspelt, "Misspelt has no method act, so its agents do nothing in a step; is its atc me"),
        (Listens, "Listens has no method act, so its agents do nothing in a step"),
        (CreativeAgent, "CreativeAgent has no method act"),
        (Inherits, None),
        (Agent, None),
    ],
)
def test_a_class_without_act(cls: type, text: str | None) -> None:
    said = missing_act(cls)
    assert (said is None) if text is None else said is not None and text in said
    assert ("is its" in (said or "")) == (cls is Misspelt)
