"""The row about values that cost too much: to hash, to print or to send."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from creamas_sc.client import SyncSimulation, connect_sync
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    BadValue,
    CreamasError,
    DecodeError,
    EncodeError,
)
from creamas_sc.wire.codec import MAX_VALUE_BYTES
from tests.faults.daemon import CALL_SECONDS, SLAVES, daemon
from tests.faults.registry import Figures, row

NAME = "row-17"
GOOD_SECONDS = 1.0
# Of an error's text: it is cut before it travels.
LONGEST_TEXT = 3_000
# Hashes of numbers are their rests by this.
MODULUS = (1 << 61) - 1
# It takes this process, which makes them, half a second.
KEYS = 5_000
DIGITS = 20_000
# More digits than Python prints.
HUGE = 10**DIGITS
TEXT_LENGTH = 50_000_000
LIMIT = MAX_VALUE_BYTES
ONE_HASH = "different values have the same hash"
OVER = "are over the limit of"
NO_PRINT = "cannot be printed"


class Attempt(NamedTuple):
    """A call with the simulation and the first of its agents, and the error that it must raise."""

    call: Callable[[SyncSimulation, Any], object]
    error: type[Any]
    words: str


ATTEMPTS = {
    "keys of one hash": Attempt(
        lambda _, agent: agent.take({n * MODULUS: n for n in range(KEYS)}), DecodeError, ONE_HASH
    ),
    "a set of one hash": Attempt(
        lambda _, agent: agent.take({(n * MODULUS, 0) for n in range(KEYS)}), DecodeError, ONE_HASH
    ),
    "a long int as a number": Attempt(
        lambda sim, _: sim.spawn_n("no:Matter", HUGE), BadValue, NO_PRINT
    ),
    "a long int as seconds": Attempt(
        lambda sim, _: sim.trigger_all_within(HUGE), BadValue, NO_PRINT
    ),
    "a long int as an age": Attempt(lambda sim, _: sim.set_age(HUGE), BadValue, NO_PRINT),
    "a long int as an address": Attempt(lambda sim, _: sim.connect(HUGE), BadArguments, NO_PRINT),
    "a long int raised": Attempt(
        lambda _, agent: agent.raise_int(DIGITS), AgentError, "ValueError"
    ),
    "a long text raised": Attempt(
        lambda _, agent: agent.raise_text(TEXT_LENGTH), AgentError, "ValueError"
    ),
    "a long text raised by all": Attempt(
        lambda sim, _: sim.gather("raise_text", TEXT_LENGTH), AgentErrors, "2 sub-exceptions"
    ),
    "bytes over the limit": Attempt(lambda _, agent: agent.give_bytes(LIMIT), AgentError, OVER),
    "a text over the limit": Attempt(lambda _, agent: agent.give_text(LIMIT), AgentError, OVER),
    "results over the limit in all": Attempt(
        lambda sim, _: sim.gather("give_bytes", LIMIT // 2), AgentError, OVER
    ),
    "arguments over the limit": Attempt(
        lambda _, agent: agent.take(bytes(LIMIT)), EncodeError, OVER
    ),
}


@row(
    17,
    f"keys of one hash, ints of {DIGITS:,} digits, texts of 50 MB raised, results over the limit",
    f"the named error; good calls are answered <= {GOOD_SECONDS:g} s after it",
    cases=tuple(ATTEMPTS),
    rounds=5 * len(ATTEMPTS),
    short=1,
)
def cost(case: str, number: int, folder: Path) -> Figures:
    """Make one such call of a simulation in a daemon, and then good ones from a second client."""
    attempt = ATTEMPTS[case]
    with daemon(NAME, folder) as running, connect_sync(NAME, timeout=CALL_SECONDS) as client:
        client.create("one", slave_addrs=SLAVES)
        with client.attach("one") as simulation, client.attach("one") as other:
            addrs = [
                simulation.spawn("tests.faults.agents:Costly", addr=addr)[1]
                for addr in simulation.get_addrs()
            ]
            well = [other.connect(addr) for addr in addrs]
            pids = running.pids
            with pytest.raises((CreamasError, AgentErrors)) as caught:
                attempt.call(simulation, simulation.connect(addrs[0]))
            began = time.monotonic()
            for agent in [*well, simulation.connect(addrs[0])]:
                assert agent.take((HUGE, "x")) == (HUGE, "x")
            seconds = time.monotonic() - began
            assert running.pids == pids
    error = caught.value
    assert type(error) is attempt.error, repr(error)
    assert attempt.words in str(error)
    assert len(str(error)) <= LONGEST_TEXT
    assert seconds <= GOOD_SECONDS
    return {"seconds after it": seconds}
