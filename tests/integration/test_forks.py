"""Processes that agents and scripts fork: they work, and are no second slave or script."""

from __future__ import annotations

from pathlib import Path

import trio

from creamas_sc import MultiEnvironment
from tests.support.agents import Parallel, Twins
from tests.support.programs import run_script

SCRIPT = """
import multiprocessing, time
from creamas_sc import Environment, MultiEnvironment, run

forking = multiprocessing.get_context("fork")
with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.env.open())
    child = forking.Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    with forking.Pool(2) as pool:
        print(child.exitcode, pool.map(abs, [-1]))
"""


async def test_a_forked_child_that_returns_is_no_second_slave(menv: MultiEnvironment) -> None:
    twins = [await menv.spawn(Twins) for _ in range(6)]
    for step in (1, 2):
        assert await menv.trigger_all() == [(step, 1)] * 6
    assert len(menv.artifacts) == 12
    told = []

    async def ask(twin: int) -> None:
        told.append(await twins[twin][0].evaluate(None))

    async with trio.open_nursery() as nursery:
        for twin in range(6):
            nursery.start_soon(ask, twin)
    assert told == [(3, 1)] * 6


async def test_agents_may_use_processes(menv: MultiEnvironment) -> None:
    parallel, _ = await menv.spawn(Parallel)
    assert await parallel.act() == [4, 1, 2, b"3\n", 5]


def test_processes_that_a_script_forks_end_by_sigterm(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    told = run_script(script)
    assert (told.stdout, told.stderr) == ("-15 [1]\n", "")
