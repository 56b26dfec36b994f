"""States as bytes: what an object holds twice is one object again, and addresses are new ones."""

from __future__ import annotations

import random
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creamas_sc import (
    Artifact,
    CreativeAgent,
    Environment,
    EnvManager,
    MultiEnvironment,
    MultiEnvManager,
)
from creamas_sc.core import kept_state
from creamas_sc.errors import CheckpointError, DecodeError, EncodeError
from creamas_sc.mp import checkpointing
from creamas_sc.rpc.exposed import Proxy
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.wire.frames import Frame, FrameReader
from tests.support.properties import bounded

HERE = ("localhost", 5555)
OLD, NEW = "tcp://localhost:5555/3", "tcp://elsewhere:7777/12"


@dataclass
class Memory:
    """Has more than its fields."""

    seen: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counted = len(self.seen)


class Painter(CreativeAgent):
    """Holds what a test gives it."""

    mood: str

    def __init__(self, environment: Environment, **attributes: Any) -> None:
        super().__init__(environment)
        vars(self).update(attributes)


class Careful(Painter):
    """Leaves out a lock, and makes one again."""

    def __getstate__(self) -> Any:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state)
        self.lock = threading.Lock()


class Brief(Painter):
    """Has a state of its own kind."""

    def __getstate__(self) -> Any:
        return ("mood", vars(self)["mood"])

    def __setstate__(self, state: Any) -> None:
        self.mood = state[1]


class Slotted(Painter):
    """Has an attribute elsewhere."""

    __slots__ = ("stroke",)
    stroke: str


def frame_of(data: bytes) -> Frame:
    (frame,) = FrameReader().receive_data(data)
    return frame


def again(value: Any, addresses: dict[str, str] | None = None) -> Any:
    """A value as it is after a checkpoint."""
    env = Environment(HERE)
    data = kept_state.state_codec(env).to_frame(value, "value")
    return kept_state.state_codec(env, addresses).from_frame(frame_of(data))


def kept_again(env: Environment, new: Environment | None = None) -> Environment:
    """An environment with the agents of another one."""
    new = Environment(HERE) if new is None else new
    frames = kept_state.keep_agents(env, kept_state.state_codec(env))
    numbers = [agent.number for agent in env.get_agents(addr=False)]
    codec = kept_state.state_codec(new)
    kept_state.restore_agents(new, codec, numbers, map(frame_of, frames))
    return new


def test_what_is_held_twice_is_one_object_again() -> None:
    shared, artifact, generator = [1, 2], Artifact("x", np.ones(3)), random.Random(1)
    weights, pair = np.arange(9000.0), ([3], 4)
    value = {
        "list": shared,
        "deeper": {"list": (shared, [shared])},
        "artifacts": [artifact, artifact],
        "memory": Memory([artifact]),
        "generators": [generator, generator],
        "weights": [weights, weights],
        "pairs": [pair, pair],
        "set": [members := {1, 2}, members],
    }
    found = again(value)
    assert found["list"] is found["deeper"]["list"][0] is found["deeper"]["list"][1][0]
    assert found["artifacts"][0] is found["artifacts"][1] is found["memory"].seen[0]
    for name in ("generators", "weights", "pairs", "set"):
        first, second = found[name]
        assert first is second
    found["weights"][0][0] = 1.0  # it can be written to
    assert found["list"] == shared
    assert found["deeper"]["list"][1] == [shared]


def test_a_dataclass_keeps_all_attributes() -> None:
    memory = Memory([1])
    memory.counted = 17
    memory.more = "new"  # type: ignore[attr-defined]
    assert vars(again(memory)) == {"seen": [1], "counted": 17, "more": "new"}


def test_generators_go_on_where_they_were() -> None:
    own, of_numpy = random.Random(3), np.random.default_rng(4)
    own.gauss(0, 1)  # half of a pair is left
    of_numpy.integers(0, 2, dtype=np.uint8)
    of_numpy.spawn(2)
    kinds = [np.random.Generator(kind(5)) for kind in (np.random.MT19937, np.random.Philox)]
    found, found_numpy, found_kinds = again([own, of_numpy, kinds])
    assert [own.gauss(0, 1), own.random()] == [found.gauss(0, 1), found.random()]
    assert of_numpy.random(5).tolist() == found_numpy.random(5).tolist()
    assert of_numpy.spawn(1)[0].random() == found_numpy.spawn(1)[0].random()
    assert [each.random() for each in kinds] == [each.random() for each in found_kinds]


def test_only_bit_generators_of_numpy_are_made() -> None:
    env = Environment(HERE)
    codec = kept_state.state_codec(env)
    bad = codec.to_frame(np.random.default_rng(1), "value").replace(b"PCG64", b"bytes")
    with pytest.raises(DecodeError, match="numpy has no bit generator 'bytes'"):
        codec.from_frame(frame_of(bad))


def test_collections_of_the_standard_library() -> None:
    value = {
        "deque": deque([1, 2, 3], 3),
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "counted": Counter("abca"),
        "default": defaultdict(list, {"a": [1]}),
    }
    found = again(value)
    assert found == value
    assert found["deque"].maxlen == 3
    assert list(found["ordered"]) == ["b", "a"]
    assert found["default"]["new"] == []


def test_addresses_are_replaced_wherever_they_are() -> None:
    other = "tcp://localhost:5555/33"
    value = {
        OLD: [OLD, other],
        "text": f"asked {OLD}, then {other}",
        "many": [OLD] * 100,  # in columns
        "pairs": [(OLD, {OLD: number}) for number in range(100)],
        "artifact": Artifact(OLD, 1),
        "set": {OLD},
    }
    found = again(value, {OLD: NEW})
    assert found.pop(NEW) == [NEW, other]
    assert found["text"] == f"asked {NEW}, then {other}"
    assert found["many"] == [NEW] * 100
    assert found["pairs"][99] == (NEW, {NEW: 99})
    assert found["artifact"].creator == NEW
    assert found["set"] == {NEW}


def test_agents_are_agents_again_here_and_proxies_elsewhere() -> None:
    env = Environment(HERE)
    first = Painter(env)
    proxy = Proxy(env.network, "tcp://localhost:9/1", "m:C")
    Painter(env, friend=first, far=proxy, home=env)
    there = Environment(HERE)
    one, two = kept_again(env, there).get_agents(addr=False)
    assert two.friend is one
    assert two.home is there
    assert isinstance(two.far, Proxy)
    assert two.far.addr == "tcp://localhost:9/1"


def test_an_agent_goes_on_as_it_was() -> None:
    env = Environment(HERE)
    env.seed = 3
    agent = Painter(env, mood="calm")
    Painter(env)
    agent.name = "Ann"
    agent.add_artifact(Artifact(agent, 1))
    agent.max_res = 5
    agent.add_connection("tcp://localhost:9/1", w=2)
    agent.rng.random()
    agent.numpy_rng.random()
    one, two = kept_again(env).get_agents(addr=False)
    assert type(one) is Painter
    assert (one.name, one.mood, one.max_res) == ("Ann", "calm", 5)
    assert one.A == agent.A
    assert one.connections == {"tcp://localhost:9/1": {"w": 2}}
    assert one.rng.random() == agent.rng.random()
    assert one.numpy_rng.random() == agent.numpy_rng.random()
    assert [one.number, two.number] == [0, 1]


@pytest.mark.parametrize("numpy", [False, True])
def test_a_generator_that_was_not_used_begins_as_it_would_have(numpy: bool) -> None:
    envs = []
    for place in (0, 2):
        env = Environment(HERE)
        env._random = env._random._replace(seed=5, environment=1)
        for _ in range(place):
            Painter(env)  # agents that the other one has not
        envs.append(env)
    first, second = envs
    spawned = [Painter(first) for _ in range(3)]
    numbers: list[Order] = [7, (4, 1), (2**63 - 1, 1, 2)]
    for agent, number in zip(spawned, numbers, strict=True):
        agent._order = number
    first._spawning.calls.clear()
    kept_state._note_spawned(first, numbers, 0)
    frames = kept_state.keep_agents(first, kept_state.state_codec(first))
    codec = kept_state.state_codec(second)
    second._random = second._random._replace(environment=4)
    del second._agents[:]
    kept_state.restore_agents(second, codec, numbers[::-1], map(frame_of, frames[::-1]))
    name = "numpy_rng" if numpy else "rng"
    for one, other in zip(spawned, second.get_agents(addr=False)[::-1], strict=True):
        assert getattr(one, name).random() == getattr(other, name).random()


def test_classes_say_themselves_what_their_state_is() -> None:
    env = Environment(HERE)
    Careful(env, lock=threading.Lock(), mood="calm")
    Brief(env, mood="wild", lock=threading.Lock())
    Slotted(env).stroke = "thin"
    careful, brief, slotted = kept_again(env).get_agents(addr=False)
    assert careful.mood == "calm"
    assert not careful.lock.locked()
    assert brief.mood == "wild"
    assert slotted.stroke == "thin"


def test_what_cannot_be_kept_is_named() -> None:
    env = Environment(HERE)
    Painter(env)
    Painter(env, tools={"locks": [threading.Lock()]})
    with pytest.raises(CheckpointError) as caught:
        kept_state.keep_agents(env, kept_state.state_codec(env))
    text = str(caught.value)
    assert text.startswith("agent 1 (")
    assert "Painter): its tools['locks'][0]: cannot carry _thread.lock: " in text
    assert text.endswith("or give the class __getstate__ and __setstate__, which leave it out")


@dataclass
class Node:
    """Of a tree."""

    above: Any = None
    below: list[Any] = field(default_factory=list)

    def grow(self) -> Node:
        node = Node(self)
        self.below.append(node)
        return node


@dataclass(slots=True)
class Leaf:
    above: Any = None
    more: list[Any] = field(default_factory=list)


class Pair(NamedTuple):
    first: list[Any]
    second: Any


def test_dataclasses_that_hold_each_other() -> None:
    tree = Node()
    leaf = tree.grow().grow()
    leaf.below.append(Leaf(leaf, [tree]))
    found = again({"leaf": leaf, "tree": tree})
    above = found["leaf"].above
    assert above.above is found["tree"]
    assert above.below[0] is found["leaf"]
    (new,) = found["leaf"].below
    assert type(new) is Leaf
    assert new.above is found["leaf"]
    assert new.more[0] is found["tree"]


def test_what_objects_hold_is_shared_with_what_is_outside_them() -> None:
    shared: list[int] = []
    artifact = Artifact("x", shared)
    value = {
        "list": shared,
        "memory": Memory(shared),
        "leaf": Leaf(None, shared),
        "artifact": artifact,
        "deque": deque([shared, shared]),
        "ordered": OrderedDict(a=shared),
        "default": defaultdict(list, a=shared),
        "pair": Pair(shared, 1),
    }
    found = again(value)
    found["list"].append(3)
    assert found["memory"].seen == found["leaf"].more == found["artifact"].obj == [3]
    assert found["deque"][0] is found["deque"][1] is found["ordered"]["a"] is found["list"]
    assert found["default"]["a"] is found["pair"].first is found["list"]


def test_bytearrays_are_kept_as_such() -> None:
    data = bytearray(b"ab")
    found = again({"a": {"b": [data, Memory([data])]}})
    first, memory = found["a"]["b"]
    assert type(first) is bytearray
    assert first == data
    assert memory.seen[0] is first


@pytest.mark.parametrize("kind", ["list", "dict", "artifact", "deque"])
def test_what_holds_itself_otherwise_is_refused(kind: str) -> None:
    env, artifact = Environment(HERE), Artifact("x", [])
    loop: Any = {"list": [], "dict": {}, "artifact": artifact.obj, "deque": deque()}[kind]
    loop.update(a=loop) if kind == "dict" else loop.append(
        artifact if loop is artifact.obj else loop
    )
    Painter(env, loop=loop)
    with pytest.raises(CheckpointError, match=r"its loop.*: it holds itself, or give the class"):
        kept_state.keep_agents(env, kept_state.state_codec(env))


def test_views_of_memory_and_what_is_too_deep_are_named() -> None:
    env = Environment(HERE)
    Painter(env, views=[[[memoryview(b"")]]])
    with pytest.raises(CheckpointError, match=r"its views\[0\]\[0\]\[0\]: .*use bytes instead"):
        kept_state.keep_agents(env, kept_state.state_codec(env))
    env = Environment(HERE)
    chain = Node()
    Painter(env, chain=chain)
    for _ in range(110):
        chain.above = chain = Node()
    with pytest.raises(CheckpointError, match=r"its chain\.above.*: .*more than 100 "):
        kept_state.keep_agents(env, kept_state.state_codec(env))


def test_all_agents_are_made_or_none() -> None:
    env, there = Environment(HERE), Environment(HERE)
    Painter(env)
    Painter(env)
    good, bad = kept_state.keep_agents(env, kept_state.state_codec(env))
    bad = bad.replace(b":Painter", b":Paynter")
    codec = kept_state.state_codec(there)
    with pytest.raises(CheckpointError, match=r"agent 1: .*Paynter"):
        kept_state.restore_agents(there, codec, [0, 1], map(frame_of, (good, bad)))
    assert there.get_agents() == []
    kept_state.restore_agents(there, codec, [0], [frame_of(good)])
    assert len(there.get_agents()) == 1


def test_no_other_class_is_made() -> None:
    env = Environment(HERE)
    Painter(env)
    (data,) = kept_state.keep_agents(env, kept_state.state_codec(env))
    frame = frame_of(data)._replace(meta=b"threading:Thread")
    with pytest.raises(CheckpointError, match="'threading:Thread' is not an agent class"):
        kept_state.restore_agents(env, kept_state.state_codec(env), [0], [frame])


plain = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=5)
        | st.tuples(inner, inner)
        | st.builds(Memory, st.lists(inner, max_size=3))
    ),
    max_leaves=30,
)


@bounded(60)
@given(values, st.lists(st.integers(0, 3), max_size=6))
def test_values_are_equal_and_shared_alike(value: Any, places: list[int]) -> None:
    shared: list[Any] = [[value], {"v": value}, (value, 1), Memory([value])]
    whole = {"own": value, "shared": [shared[place] for place in places]}
    found = again(whole)
    assert found == whole
    for one, first in zip(found["shared"], places, strict=True):
        for other, second in zip(found["shared"], places, strict=True):
            assert (one is other) == (first == second)


def test_a_codec_encodes_again_after_a_refusal() -> None:
    codec = kept_state.state_codec(Environment(HERE))
    memory = Memory([threading.Lock()])
    for _ in range(2):
        with pytest.raises(EncodeError, match="lock"):
            codec.to_frame([memory, memory], "value")
    memory.seen.clear()
    assert codec.from_frame(frame_of(codec.to_frame([memory, memory], "value")))[1].seen == []


async def test_only_what_users_add_is_kept_of_environments_and_managers() -> None:
    menv = MultiEnvironment(HERE, Environment, MultiEnvManager)
    assert await kept_state.own_state(menv, checkpointing.OWN, "it") == {}
    assert await kept_state.environment_state(menv.env) == {"state": {}, "manager": {}}
    env = Environment(HERE)
    env.manager = EnvManager(env)
    assert await kept_state.environment_state(env) == {"state": {}, "manager": {}}
    env.manager.mood = env.light = "calm"  # type: ignore[attr-defined]
    kept = await kept_state.environment_state(env)
    assert kept == {"state": {"light": "calm"}, "manager": {"mood": "calm"}}
