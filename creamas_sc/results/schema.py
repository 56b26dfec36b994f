"""The tables of a run's record, an SQLite file.

Each step is one transaction, and its row in ``steps`` is the mark that it is whole: rows of other
tables with that number are there exactly if it is. What comes between two steps is in the rows of
the second one; what comes after the last one has the next number, which is not in ``steps``.
Agents are known by their numbers: an int, or of one that another agent made, text such as "17.0".

What agents' ``observe`` returns is many values of one type a step, so ``agents`` holds columns: a
row for each step and name, the values packed as `creamas_sc.results.columns` says, in the order of
the agents in ``numbers``. `creamas_sc.results.open` has them as rows, as has an export.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
"""Kept as the file's ``user_version``; 0 while it is being made."""

SQL: Final = """
CREATE TABLE run (
    id TEXT,             -- unlike that of any other run
    class TEXT,          -- of the environment or multi-environment
    parameters TEXT,     -- JSON: the user's, and the environment's keyword arguments
    setup TEXT,          -- JSON: classes, slaves, how calls go, the restart policy
    seed TEXT,           -- an int, which may have more than 64 bits
    versions TEXT,       -- JSON: of Python and packages
    code TEXT,           -- SHA-256 of the user's code
    machine TEXT,        -- JSON
    began REAL,          -- seconds since 1970
    ended REAL           -- NULL if it goes on, or was killed
);
CREATE TABLE steps (
    step INTEGER PRIMARY KEY,
    age INTEGER,         -- of the environment
    began REAL,          -- seconds since 1970
    seconds REAL,
    acts INTEGER,        -- agents that acted, those that failed included
    errors INTEGER,      -- agents whose act raised
    error TEXT,          -- what else the step raised
    repeatable INTEGER,  -- 1 or 0; NULL if unknown, as where agents' calls are free
    why TEXT             -- JSON: why it is not
);
CREATE TABLE metrics (step INTEGER, name TEXT, value);
CREATE TABLE numbers (
    id INTEGER PRIMARY KEY,
    step INTEGER,        -- the first one with it
    agents TEXT          -- JSON: numbers, or [first, n] for n that follow each other
);
CREATE TABLE agents (
    step INTEGER,
    name TEXT,
    numbers INTEGER,     -- of which agents, in which order
    form TEXT,
    "values" BLOB
);
CREATE TABLE artifacts (
    artifact INTEGER PRIMARY KEY,  -- from 0 on, in the order in which they were published
    step INTEGER,
    agent,               -- NULL if the creator is not an agent of the simulation
    creator TEXT,        -- the name, or the number of an agent without one
    class TEXT,
    domain TEXT,
    evaluations TEXT,    -- JSON: name, or number, of who evaluated -> evaluation
    framings TEXT,       -- JSON, likewise
    features TEXT,       -- JSON
    object_class TEXT,
    object BLOB,         -- encoded; NULL if it cannot be, or is in a file
    file TEXT            -- in the folder "objects": SHA-256 of the encoded object
);
CREATE TABLE connections (
    step INTEGER,        -- from it on, these are all connections of the agent
    agent,
    other,               -- a number, or an address elsewhere; NULL if the agent has none left
    data TEXT            -- JSON
);
CREATE TABLE events (step INTEGER, time REAL, event TEXT, details TEXT);
"""

COLUMNS: Final = {
    "steps": ("step", "age", "began", "seconds", "acts", "errors", "error", "repeatable", "why"),
    "metrics": ("step", "name", "value"),
    "numbers": ("id", "step", "agents"),
    "agents": ("step", "name", "numbers", "form", "values"),
    "artifacts": (
        *("artifact", "step", "agent", "creator", "class", "domain"),
        *("evaluations", "framings", "features", "object_class", "object", "file"),
    ),
    "connections": ("step", "agent", "other", "data"),
    "events": ("step", "time", "event", "details"),
}
RUN: Final = (
    *("id", "class", "parameters", "setup", "seed", "versions", "code", "machine"),
    *("began", "ended"),
)


def insert(table: str) -> str:
    """The statement that inserts a row into a table."""
    columns = ", ".join(f'"{name}"' for name in COLUMNS[table])
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(COLUMNS[table]))})"
