"""The rows of the table of faults, a module for each subject; importing them registers them."""

from tests.faults.cases import (
    cancellation,
    costs,
    cycles,
    deadlines,
    deaths,
    deserters,
    garbage,
    relays,
    removals,
    restarts,
    signals,
    slaves,
    streams,
    user_code,
)

__all__ = [
    "cancellation",
    "costs",
    "cycles",
    "deadlines",
    "deaths",
    "deserters",
    "garbage",
    "relays",
    "removals",
    "restarts",
    "signals",
    "slaves",
    "streams",
    "user_code",
]
