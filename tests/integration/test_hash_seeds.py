"""Sets of strings have one order in the slaves of all runs, unless the user wants another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.marks import slow_but
from tests.support.programs import environ, run, script_command

SCRIPT = """
from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager

class Hashing(CreativeAgent):
    @expose
    async def act(self):
        return hash("creamas")

with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)], Environment, EnvManager))
    run(menv.spawn(Hashing))
    print("hash", *run(menv.trigger_all()))
"""


@pytest.mark.parametrize(
    ("chosen", "same"),
    slow_but((), [("", True), ("random", False), ("7", True)]),
)
def test_strings_hash_alike_in_the_slaves_of_two_runs(
    tmp_path: Path, chosen: str, same: bool
) -> None:
    script = tmp_path / "hashing.py"
    script.write_text(SCRIPT)
    env = environ(PYTHONHASHSEED=chosen)
    if not chosen:
        del env["PYTHONHASHSEED"]
    first, second = [run(*script_command(script), env=env) for _ in range(2)]
    assert first.stdout.startswith("hash "), first.stderr
    assert (first.stdout == second.stdout) is same
