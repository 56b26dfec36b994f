"""The restart policies, driven with random events: what must hold after any of them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from creamas_sc.restarts.machine import (
    LONGEST_PAUSE_SECONDS,
    Action,
    EndSimulation,
    RestartMachine,
    StartSlave,
)
from creamas_sc.restarts.policy import Mode, RestartPolicy
from tests.support.properties import bounded, few_or_many

SLOTS = ("slave-0", "slave-1", "slave-2")


class World(RuleBasedStateMachine):
    """Carries out the machine's actions on processes that are only counted."""

    @initialize(mode=st.sampled_from(Mode), restarts=st.integers(0, 4))
    def begin(self, mode: Mode, restarts: int) -> None:
        self.policy = RestartPolicy(mode.value, restarts, 10.0)
        self.machine = RestartMachine(self.policy)
        self.now = 0.0
        self.alive: set[str] = set()
        self.due: dict[str, float] = {}
        self.starting: set[str] = set()
        self.ends: list[str] = []
        self.closed = False
        self.starts: list[float] = []
        for slot in SLOTS:
            self.alive.add(slot)
            assert self.machine.slave_up(slot)

    def carry_out(self, slot: str, action: Action) -> None:
        match action:
            case StartSlave(at, number):
                assert 1 <= number <= self.policy.restarts
                assert slot not in self.alive, "two live processes for one slot"
                assert slot not in self.starting, "started twice"
                assert slot not in self.due, "started twice"
                assert not self.closed, "a restart after the close"
                assert not self.ends, "a restart after the end"
                assert 0 <= at - self.now <= LONGEST_PAUSE_SECONDS
                self.due[slot] = at
            case EndSimulation(cause):
                assert not self.closed
                self.ends.append(cause)

    def start_due(self) -> None:
        """As the driver does: a restart that has not begun when the simulation ends is dropped."""
        for slot, at in list(self.due.items()):
            if at <= self.now:
                del self.due[slot]
                if not self.machine.ended:
                    self.starting.add(slot)
                    self.starts.append(self.now)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), in_order=st.booleans(), reports=st.integers(1, 2))
    def a_slave_exits(self, data: st.DataObject, in_order: bool, reports: int) -> None:
        slot = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.remove(slot)
        for _ in range(reports):
            self.carry_out(slot, self.machine.slave_lost(slot, "why", self.now, in_order))
        self.start_due()

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def a_start_succeeds(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(slot)
        if self.machine.slave_up(slot):
            self.alive.add(slot)
        if self.closed or self.ends:
            assert slot not in self.alive, "left running after the close"

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def a_start_fails(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(slot)
        self.carry_out(slot, self.machine.start_failed(slot, "why", self.now))
        self.start_due()

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due and min(self.due.values()) <= until:
            self.now = min(self.due.values())
            self.start_due()
        self.now = until

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.machine.end()

    @invariant()
    def the_intensity_is_kept(self) -> None:
        # What counts is when the loss was, and the start may come the longest pause later.
        window = self.policy.seconds - LONGEST_PAUSE_SECONDS
        for i, at in enumerate(self.starts):
            within = [t for t in self.starts[: i + 1] if at - t < window]
            assert len(within) <= self.policy.restarts

    @invariant()
    def what_is_expected_is_due_or_being_started(self) -> None:
        for slot in SLOTS:
            coming = slot in self.starting or slot in self.due
            assert self.machine.expects(slot) == (coming and not self.machine.ended)

    @invariant()
    def the_simulation_ends_once(self) -> None:
        assert len(self.ends) <= 1


@few_or_many(100, 200)
def test_the_policies_hold_in_any_world(examples: int) -> None:
    run_state_machine_as_test(World, settings=bounded(examples, stateful_step_count=40))
