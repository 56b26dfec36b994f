"""Steps in rounds: what a society does depends on its programs and its seed alone."""

from __future__ import annotations

import trio
from hypothesis import strategies as st

from tests.support.properties import holds_for
from tests.support.societies import OPS, Op, run_society

PROGRAMS = st.lists(
    st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 7)), max_size=4),
    min_size=2,
    max_size=8,
)


@holds_for(PROGRAMS, st.integers(2, 4), few=15, many=60)
def test_the_same_at_any_number_of_environments(programs: list[list[Op]], several: int) -> None:
    alone = trio.run(run_society, programs, 1)
    assert trio.run(run_society, programs, several) == alone
