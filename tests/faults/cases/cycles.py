"""Many simulations one after the other in one supervisor: nothing accumulates."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import trio

from creamas_sc import Environment, MultiEnvironment
from creamas_sc.mp import EnvManager
from tests.faults.registry import Figures, row
from tests.support.agents import Echo
from tests.support.processes import family
from tests.support.shared_supervisor import own_children

CYCLE_SECONDS = 5.0
GROWTH_KIB = 1024


@row(
    12,
    "start, act, stop: cycle after cycle in one supervisor",
    "0 processes, descriptors, sockets, tasks gained; memory flat (1 MiB a process in 1,000)",
    cases=("10 cycles", "1000 cycles"),
    rounds=2,
    short=1,
    quick=0,
)
def cycles(case: str, number: int, folder: Path) -> Figures:
    """So many cycles after some to warm up."""
    return trio.run(_cycles, int(case.split()[0]))


async def _cycles(n: int) -> Figures:
    async with MultiEnvironment(("localhost", 0), Environment) as menv:
        # Until then pages become a process's own that it shared with the zygote, and the last
        # arena is taken.
        for _ in range(max(10, n // 2)):
            await _cycle(menv)
        before, kib_before = _held(menv)
        for _ in range(n):
            await _cycle(menv)
        with trio.move_on_after(CYCLE_SECONDS):
            while _gained(before, _held(menv)[0]):  # noqa: ASYNC110 - what is about to be closed
                await trio.sleep(0.05)
        after, kib_after = _held(menv)
    assert not _gained(before, after), f"{before} became {after}"
    growth = {name: kib_after[name] - kib_before[name] for name in kib_after}
    assert max(growth.values()) <= GROWTH_KIB, growth
    return {f"{name} grew by KiB": kib for name, kib in growth.items()}


def _gained(before: dict[str, int], after: dict[str, int]) -> bool:
    """Whether there is more of anything; fewer is what was about to be closed."""
    return any(after[what] > before[what] for what in after)


async def _cycle(menv: MultiEnvironment) -> None:
    with trio.fail_after(CYCLE_SECONDS):
        await menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager)
        await menv.spawn(Echo)
        await menv.trigger_all()
        report = await menv.stop_slaves()
        assert report.graceful


def _held(menv: MultiEnvironment) -> tuple[dict[str, int], dict[str, int]]:
    """Descriptors, processes and tasks, and memory in KiB, of this process and the tree."""
    gc.collect()
    (keeper,) = own_children()
    pids = {"script": os.getpid(), **family(keeper)}
    held = {
        f"descriptors of {name}": len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items()
    }
    held["processes"] = len(pids)
    held["tasks"] = len(menv.get_loop().nursery.child_tasks)
    return held, {name: _anonymous_kib(pid) for name, pid in pids.items()}


def _anonymous_kib(pid: int) -> int:
    """What a process has written to and holds: pages shared with its parent do not count."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise AssertionError(f"no memory of {pid}")
