"""All rows of the scoreboard."""

from tests.faults import (
    row_cancels,
    row_cycles,
    row_deadlines,
    row_deaths,
    row_restarts,
    row_signals,
    row_slaves,
    row_strangers,
    row_streams,
    row_user_code,
)

__all__ = [
    "row_cancels",
    "row_cycles",
    "row_deadlines",
    "row_deaths",
    "row_restarts",
    "row_signals",
    "row_slaves",
    "row_strangers",
    "row_streams",
    "row_user_code",
]
