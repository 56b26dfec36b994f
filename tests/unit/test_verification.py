"""What differs between two runs, and why, told from what was kept of them."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from creamas_sc import Artifact, verify
from creamas_sc.core.digests import Forms
from creamas_sc.errors import AgentError, AgentErrors, BadValue
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.verification import Change, Difference, Verification, causes
from creamas_sc.verification.causes import Evidence, Window, causes_of
from creamas_sc.verification.differences import first_difference, text_of
from creamas_sc.verification.snapshots import Snapshot, Unequal, unequal
from creamas_sc.wire.codec import Codec

URL = "tcp://localhost:5555/"


def form(value: Any) -> Any:
    """Of a value in a simulation with the agents 0 to 9."""
    return Forms(Codec(), {URL: [[0, 10]]}).of(value)


class Memory:
    def __init__(self, pictures: Any, _capacity: int = 3) -> None:
        self._pictures = pictures
        self._capacity = _capacity


@pytest.mark.parametrize(
    ("one", "other", "path", "texts"),
    [
        (1, 2, "", ("1", "2")),
        ([1, 2], [1, 3], "[1]", ("2", "3")),
        ([1, [2, 3]], [1, [2, 4]], "[1][1]", ("3", "4")),
        ([1, 2], [1, 2, 3], "", ("[1, 2]", "[1, 2, 3]")),
        ([1, 2], [3, 2, 3], "[0]", ("1", "3")),
        ((1,), [1], "", ("(1)", "[1]")),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "['b']", ("2", "3")),
        ({"a": 1}, {"b": 1}, "", ("{'a': 1}", "{'b': 1}")),
        ({f"{URL}1": 1}, {f"{URL}1": 2}, "[agent 0]", ("1", "2")),
        ({1}, {2}, "", ("{1}", "{2}")),
        (Memory([1, 2]), Memory([1, 3]), ".pictures[1]", ("2", "3")),
        (Memory(1), Memory(1, 4), ".capacity", ("3", "4")),
        (Memory(1), 1, "", ("Memory(capacity=3, pictures=1)", "1")),
        (Artifact("a", {"x": [1]}), Artifact("a", {"x": [2]}), ".obj['x'][0]", ("1", "2")),
        (f"{URL}1", f"{URL}2", "", ("agent 0", "agent 1")),
        (2**70, 2**71, "", (str(2**70), str(2**71))),
        (int, float, "", ("int", "float")),
        ([0] * 100, [0] * 101, "", (f"[{'0, ' * 20}80 more]", f"[{'0, ' * 20}81 more]")),
    ],
)
def test_the_first_difference(one: Any, other: Any, path: str, texts: tuple[str, str]) -> None:
    place = first_difference(form(one), form(other))
    assert (place.path, place.reordered) == (path, False)
    assert (text_of(place.forms[0]), text_of(place.forms[1])) == texts


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ([1, 2, 3], [3, 1, 2], ""),
        ((1, (2, 3)), (1, (3, 2)), "[1]"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ""),
        (Memory([1, "x"]), Memory(["x", 1]), ".pictures"),
    ],
)
def test_what_is_only_in_another_order(one: Any, other: Any, path: str) -> None:
    place = first_difference(form(one), form(other))
    assert (place.path, place.reordered) == (path, True)


def test_texts_are_shortened() -> None:
    assert len(text_of(form("x" * 10_000))) < 300
    assert text_of(form(random.Random(1))).startswith("Random in state ")


# ---- causes


def found(one: Any, other: Any, **evidence: Any) -> list[str]:
    """The causes of a difference between two values."""
    window = Window.since()
    begun = Window((window.wall[0] - 60, 0), (window.monotonic[0] - 60, 0))
    place = first_difference(form(one), form(other))
    return causes_of([place], Evidence(Window.since(begun), **evidence))


@pytest.mark.parametrize(
    ("one", "other", "cause"),
    [
        (f"by {URL}1", "by tcp://localhost:7777/1", causes.USES_ADDRESS),
        ("tcp://localhost:7777/", "tcp://localhost:7778/", causes.USES_ADDRESS),
        ("<A object at 0x7f1f97e61490>", "<A object at 0x7f1fcccb9490>", causes.USES_MEMORY),
        ([f"{URL}1", f"{URL}2"], [f"{URL}2", f"{URL}1"], causes.REORDERED_AGENTS),
        ({f"{URL}1": 1, f"{URL}2": 2}, {f"{URL}2": 2, f"{URL}1": 1}, causes.REORDERED_AGENTS),
        (["a", "b"], ["b", "a"], causes.REORDERED),
    ],
)
def test_causes_that_the_values_show(one: Any, other: Any, cause: str) -> None:
    assert found(one, other) == [cause]


@pytest.mark.parametrize("clock", [time.time, time.monotonic, time.time_ns, time.monotonic_ns])
def test_times_are_recognized(clock: Any) -> None:
    first = clock()
    step = 0.5 if isinstance(first, float) else 5 * 10**8
    assert found(first, first - step) == [causes.USES_TIME]
    assert found({"at": [first]}, {"at": [first - step]}) == [causes.USES_TIME]
    assert found(first, 0.5) == found(int(time.monotonic()), int(time.monotonic()) - 5) == []
    assert found(first - 10_000 * step, first - 20_000 * step) == []


def test_without_evidence_there_is_no_cause() -> None:
    assert found(0.25, 0.75) == []
    assert found("one", "another") == []
    same = "the first difference is elsewhere"
    assert found(same, 1, hashes=([1, 1], [1])) == []


def test_causes_around_the_values() -> None:
    assert found(1, 2, hashes=([1], [2])) == [causes.HASHES_DIFFER]
    assert found(1, 2, free=True) == [causes.FREE_CALLS]
    (why,) = found(1, 2, why=["a slave was lost", "a slave was lost"])
    assert why == "the step is not repeatable: a slave was lost"
    drawn = {"random": "in slave 1 of 2", "numpy.random": "in this script"}
    one, other = found(1, 2, generators=drawn)
    assert one.startswith("random, a generator that agents share, was used (in slave 1 of 2): ")
    assert one.endswith("draw from agent.rng")
    assert other.endswith("draw from agent.numpy_rng")


# ---- snapshots


def snapshot(**agents: bytes) -> Snapshot:
    return Snapshot({int(name[1:]): digest for name, digest in agents.items()})


def test_equal_snapshots() -> None:
    assert unequal(snapshot(a0=b"0", a1=b"1"), snapshot(a1=b"1", a0=b"0")) == []


def test_the_first_agent_that_differs_is_found() -> None:
    first, second = snapshot(a0=b"0", a2=b"2", a1=b"1"), snapshot(a0=b"0", a1=b"x", a2=b"y")
    assert unequal(first, second) == [Unequal(1, "state")]
    first.results, second.results = {1: 5, 2: 6}, {1: 7, 2: 8}
    first.artifacts[1] = [form(Artifact("a", 1))]
    assert [what.what for what in unequal(first, second)] == ["result", "artifacts", "state"]
    assert unequal(first, second)[0].forms == (5, 7)


def test_an_agent_that_is_there_in_one_run_only() -> None:
    first, second = snapshot(a0=b"0"), snapshot(a0=b"0")
    made: Order = (0, 3)
    second.agents[made] = b"3"
    assert unequal(first, second) == [Unequal(made, "agent", (False, True))]


def test_what_belongs_to_no_agent() -> None:
    first, second = snapshot(a0=b"0"), snapshot(a0=b"0")
    first.result, second.result = 1, 2
    assert unequal(first, second) == [Unequal(None, "result", (1, 2))]
    second.artifacts["bob"] = [1]
    expected = ["items", "list"], ["items", "list", 1]
    assert unequal(first, second) == [Unequal("bob", "artifacts", expected)]


def test_results_and_artifacts_are_those_of_agents() -> None:
    forms = Forms(Codec(), {URL: [[0, 3]]})
    addresses = {f"{URL}{at}": at - 1 for at in (1, 2, 3)}
    taken = Snapshot()
    error = AgentError.from_exception(f"{URL}2", ValueError(f"{URL}1"))
    errors = AgentErrors("failed", {f"{URL}2": error}, ["a", f"{URL}1"])
    taken.take_results(forms, [0, 1, 2], errors, addresses)
    assert taken.results == {
        0: "a", 1: ["object", "ValueError", error.message.replace(f"{URL}1", "<agent 0>")],
        2: ["agent", 0],
    }  # fmt: skip
    taken.take_results(forms, [0, 1, 2], ["other"], addresses)
    assert (taken.results, taken.result) == ({}, ["items", "list", "other"])
    made = [Artifact(f"{URL}2", 1), Artifact("bob", 2), Artifact("nobody", 3)]
    taken.take_artifacts(forms, made, {"bob": 2})
    assert list(taken.artifacts) == [1, 2, "nobody"]


# ---- what is said


def test_the_outcome_in_words() -> None:
    same = Verification(True, 7, 3, (1, 1, 2), "rounds")
    assert bool(same)
    assert str(same) == "same: 3 steps, seed 7, runs with 1, 1, 2 slaves"
    free = Verification(True, 7, 3, (2, 2), "free", not_compared=("Member.waiting: Event",))
    assert str(free).splitlines()[1:] == [
        'calls are free: that promises nothing for the next run, calls="rounds" does',
        "not compared: Member.waiting: Event",
    ]
    changes = (Change("state", "memory[2]", ("0.5", "0.7")), Change("result", "", ("1", "2")))
    difference = Difference(2, (3, 0), (1, 2), changes, ("the time",))
    differs = Verification(False, 7, 2, (1, 1, 2), "rounds", difference)
    assert not differs
    assert str(differs).splitlines() == [
        "agent 3.0 differs in step 2, with 1 slave and with 2",
        "  state memory[2]: 0.5 and 0.7",
        "  result: 1 and 2",
        "  cause: the time",
        "  of 2 steps, seed 7, runs with 1, 1, 2 slaves",
    ]
    start = Difference(0, None, (1, 1), ())
    assert str(start).splitlines() == [
        "the step as a whole differs before the first step, in two runs with 1 slave",
        "  cause: no cause was detected",
    ]


@pytest.mark.parametrize(
    "wrong", [{"slaves": ()}, {"slaves": (1, 0)}, {"slaves": (1.0,)}, {"steps": -1}, {"steps": 1.5}]
)
def test_arguments_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadValue, match=next(iter(wrong))):
        verify(lambda slaves, seed: pytest.fail("it was called"), **wrong)


def test_what_is_built_must_be_a_multi_environment() -> None:
    with pytest.raises(BadValue, match="must return a MultiEnvironment, not None"):
        verify(lambda slaves, seed: None)
