"""The restart machine: which events lead to which actions, and when."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

from creamas_sc.errors import BadValue
from creamas_sc.restarts.machine import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Action,
    EndSimulation,
    RestartMachine,
    StartSlave,
)
from creamas_sc.restarts.policy import RestartPolicy

A, B = "slave-0", "slave-1"


class Play:
    """A machine whose slaves are up, and its clock."""

    def __init__(self, mode: str, restarts: int = 3, seconds: float = 10.0) -> None:
        self.machine = RestartMachine(RestartPolicy(mode, restarts, seconds))
        self.now = 100.0
        for slot in (A, B):
            assert self.machine.slave_up(slot)

    def lose(self, slot: str = A, in_order: bool = False) -> Action:
        """It ends; if it is to be restarted, the pause before that is awaited."""
        action = self.machine.slave_lost(slot, "it broke", self.now, in_order)
        if isinstance(action, StartSlave):
            self.now = action.at
        return action

    def fail(self, slot: str = A) -> Action:
        return self.machine.start_failed(slot, "no such port", self.now)

    def lose_and_restart(self, number: int, slot: str = A) -> None:
        assert self.lose(slot) == StartSlave(self.now, number)
        assert self.machine.expects(slot)
        assert self.machine.slave_up(slot)
        assert not self.machine.expects(slot)


@pytest.mark.parametrize(
    ("mode", "in_order", "restarted"),
    [
        ("temporary", False, False),
        ("temporary", True, False),
        ("transient", False, True),
        ("transient", True, False),
        ("permanent", False, True),
        ("permanent", True, True),
    ],
)
def test_modes(mode: str, in_order: bool, restarted: bool) -> None:
    play = Play(mode)
    assert play.lose(in_order=in_order) == (StartSlave(100.0, 1) if restarted else None)
    assert play.machine.expects(A) is restarted
    assert not play.machine.ended


@pytest.mark.parametrize("in_order", [True, False])
def test_all_ends_with_the_first(in_order: bool) -> None:
    play = Play("all")
    cause = "it broke; with restart='all' that ends the simulation"
    assert play.lose(in_order=in_order) == EndSimulation(cause)
    assert play.machine.ended
    assert play.lose(B) is None


@pytest.mark.parametrize("restarts", [0, 1, 3, 7])
def test_exactly_so_many_restarts_then_the_end(restarts: int) -> None:
    play = Play("permanent", restarts, 1000.0)
    for number in range(1, restarts + 1):
        play.lose_and_restart(number, (A, B)[number % 2])
    times = "1 restart" if restarts == 1 else f"{restarts} restarts"
    cause = f"it broke; after {times} in 1000 s restart='permanent' ends the simulation"
    assert play.lose() == EndSimulation(cause)
    assert play.lose(B) is None
    assert not any(map(play.machine.expects, (A, B)))


def test_restarts_count_for_so_long_and_no_longer() -> None:
    play = Play("permanent", 2, 10.0)
    play.lose_and_restart(1)
    play.now = 105.0
    play.lose_and_restart(2)
    play.now = 110.0  # ten seconds after the first: that one counts no more
    play.lose_and_restart(2)
    play.now = 114.9
    assert isinstance(play.lose(), EndSimulation)


def test_pauses_double_up_to_a_longest() -> None:
    play = Play("permanent", 100, 1000.0)
    pauses = []
    for number in range(1, 10):
        lost_at = play.now
        play.lose_and_restart(number)
        pauses.append(round(play.now - lost_at, 6))
    doubled = [FIRST_PAUSE_SECONDS * 2**i for i in range(8)]
    assert pauses == [0.0, *(min(pause, LONGEST_PAUSE_SECONDS) for pause in doubled)]
    play.now += 1000.0
    play.lose_and_restart(1)  # after a quiet time, at once again


def test_a_failed_start_counts_like_a_loss() -> None:
    play = Play("permanent", 2)
    assert play.lose() == StartSlave(100.0, 1)
    assert play.fail() == StartSlave(100.0 + FIRST_PAUSE_SECONDS, 2)
    assert play.machine.expects(A)
    end = play.fail()
    assert isinstance(end, EndSimulation)
    assert end.cause.startswith("no such port; after 2 restarts")
    assert not play.machine.expects(A)


def test_no_restart_while_closing() -> None:
    play = Play("permanent")
    play.lose_and_restart(1)
    assert isinstance(play.lose(), StartSlave)
    assert play.machine.expects(A)
    play.machine.end()
    assert not play.machine.expects(A)
    assert play.fail() is None
    assert play.lose(B) is None


def test_what_comes_up_while_closing_is_stopped() -> None:
    play = Play("permanent")
    assert play.lose() == StartSlave(100.0, 1)
    play.machine.end()
    assert not play.machine.slave_up(A)
    assert play.lose() is None


def test_a_loss_counts_once() -> None:
    play = Play("permanent")
    assert play.fail() is None  # it is up
    assert isinstance(play.lose(), StartSlave)
    assert play.lose() is None
    play.machine.slave_up(A)
    assert play.lose() == StartSlave(play.now, 2)
    assert play.lose() is None
    assert play.lose("stranger") is None
    assert play.fail("stranger") is None


# ---- what users say


def test_policies() -> None:
    assert RestartPolicy.of("permanent") == RestartPolicy("permanent", 3, 60.0)
    policy = RestartPolicy("transient", 5, 2)
    assert RestartPolicy.of(policy) is policy
    assert RestartPolicy.of(astuple(policy)) == RestartPolicy.of(["transient", 5, 2.0]) == policy
    assert str(policy) == "transient, at most 5 restarts in 2 s"
    assert str(RestartPolicy("all")) == "all"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("always", "'temporary' .* 'transient' .* 'permanent' .* or 'all'"),
        (None, "a mode's name or a RestartPolicy, not None"),
        (("permanent", 3), "a mode's name or a RestartPolicy"),
        (("permanent", -1, 60.0), "at least 0, not -1"),
        (("permanent", True, 60.0), "not True"),
        (("permanent", 3, 0), "above 0, not 0"),
        (("permanent", 3, float("inf")), "above 0, not inf"),
        (("permanent", 3, "1"), "above 0, not '1'"),
    ],
)
def test_what_is_not_a_policy(value: Any, text: str) -> None:
    with pytest.raises(BadValue, match=text):
        RestartPolicy.of(value)
