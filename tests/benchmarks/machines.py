"""Societies on several machines: ``python -m tests.benchmarks.machines [--rounds N] [--tiny]``.

Machines are network namespaces of this one, so that all share its cores: read how delay and the
number of slaves show, not how much several machines compute. It needs root; a round takes about
five minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from creamas_sc.supervisor_client.node_key import make_key
from tests.benchmarks.__main__ import load, prepare
from tests.benchmarks.table import spread
from tests.support.machines import Machine, has_netem, machines, missing
from tests.support.programs import Program

PORT = 5555
AGENTS = 96  # of a society
CALLS = 20  # of each agent in a step, one after the other
STEPS = 5
SECONDS = 120.0
DELAYS = (0.0, 0.001, 0.01)
# The society of which the cost is told by arithmetic.
NODES, SLAVES_EACH = 100, 5


@dataclass(frozen=True)
class Case:
    """A society.

    Attributes:
        nodes: Machines with slaves; 0 for the script's own.
        delay: Seconds on the way from one to another.
    """

    slaves: int
    nodes: int = 0
    delay: float = 0.0
    calls: str = "rounds"

    def __str__(self) -> str:
        where = f"{self.nodes} machines, {self.delay * 1000:g} ms" if self.nodes else "1 machine"
        return f"{self.slaves} slaves, {where}, {self.calls}"


def cases(tiny: bool) -> Iterator[Case]:
    """What is measured."""
    for calls, slaves in itertools.product(("rounds", "free"), (2, 4, 6, 8, 16)):
        yield Case(slaves, calls=calls)
        for nodes, delay in itertools.product((2, 3, 4), DELAYS):
            # Three machines are there for the start of six slaves.
            if slaves % nodes == 0 and (nodes == 3) == (slaves == 6):
                yield Case(slaves, nodes, delay, calls)
        if tiny:
            return


class Network(NamedTuple):
    """What the machines with slaves have sent."""

    frames: int
    bytes: int


def main() -> None:
    """Measure each case in each round, and print medians and ranges."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.machines", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a few cases, to see that it runs")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    args = parser.parse_args()
    if missing():
        parser.error(missing())
    prepare()
    figures: dict[Case, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(args.rounds):
        for case in cases(args.tiny):
            if args.only in str(case):
                for name, value in measure(case).items():
                    figures[case][name].append(value)
        print(f"round {number + 1} of {args.rounds}, {load()}", file=sys.stderr, flush=True)
    print(table(figures))
    print()
    print(arithmetic({case: each["call, ms"] for case, each in figures.items()}))


def measure(case: Case) -> dict[str, float]:
    """The figures of one society."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        made = machines(Path(folder) / "machines", 1 + case.nodes, delay=case.delay)
        first, *others = stack.enter_context(made)
        began = time.monotonic()
        script = stack.enter_context(_society(case, first, others, Path(folder)))
        spawned = json.loads(script.read_until("", SECONDS))
        started = time.monotonic() - began
        _steps(script, CALLS, 1)  # connects all with each other
        empty = _steps(script, 0, STEPS)
        before = _sent(others)
        full = _steps(script, CALLS, STEPS)
        after = _sent(others)
        assert script.process.stdin is not None
        script.process.stdin.close()
        assert script.process.wait(SECONDS) == 0
    calls = STEPS * CALLS
    return {
        "start from exec, s": started,
        "spawn_slaves, s": spawned,
        "step without calls, ms": 1000 * statistics.median(empty),
        "call, ms": 1000 * (statistics.median(full) - statistics.median(empty)) / CALLS,
        "frames a call": (after.frames - before.frames) / calls,
        "KB a call": (after.bytes - before.bytes) / calls / 1000,
    }


@contextmanager
def _society(case: Case, first: Machine, others: list[Machine], folder: Path) -> Iterator[Program]:
    key = folder / "nodes.key"
    make_key(key)
    host = first.address if case.nodes else "localhost"
    settings = [host, PORT, str(key), case.nodes, case.slaves, AGENTS, case.calls]
    with ExitStack() as stack:
        join = ["--join", f"{host}:{PORT}", "--key-file", str(key)]
        for each in others:
            node = each.program(
                sys.executable, "-m", "supervisor.cli", "node", *join, stderr=subprocess.DEVNULL
            )
            stack.enter_context(node)
        yield stack.enter_context(
            first.program(
                sys.executable, "-m", "tests.benchmarks.machines_script", json.dumps(settings),
                stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip


def _steps(script: Program, calls: int, steps: int) -> list[float]:
    script.say(f"{calls} {steps}")
    took: list[float] = json.loads(script.read_until("[", SECONDS))
    return took


def _sent(others: list[Machine]) -> Network:
    sent = [each.sent() for each in others]
    return Network(sum(frames for frames, _ in sent), sum(nbytes for _, nbytes in sent))


def table(figures: dict[Case, dict[str, list[float]]]) -> str:
    """Medians and ranges in Markdown."""
    names = list(dict.fromkeys(name for each in figures.values() for name in each))
    switch = "netem" if has_netem() else "tests.support.switch"
    lines = [
        f"{AGENTS} agents; in a step each calls {CALLS} others, one after the other, in all other "
        f"slaves by turns; frames and bytes are Ethernet's; delays by {switch}",
        "",
        f"| society | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for case, each in figures.items():
        lines.append(f"| {case} | {' | '.join(spread(each[name]) for name in names)} |")
    return "\n".join(lines)


def arithmetic(calls: dict[Case, list[float]]) -> str:
    """What a society on many nodes would cost, from what was measured on one machine.

    A call takes two exchanges: the calls, and the answers. In each of them every slave sends one
    frame to every other; what a frame costs both sides together is the slope of a call's cost
    by the number of pairs.
    """
    known = {
        case.slaves: statistics.median(ms)
        for case, ms in calls.items()
        if case == Case(case.slaves)
    }
    if not {8, 16} <= set(known):
        return ""
    cores = len(os.sched_getaffinity(0))
    frame = (known[16] - known[8]) * cores / (2 * (16 * 15 - 8 * 7))  # ms of a processor
    slaves = NODES * SLAVES_EACH
    pairs, across = slaves - 1, NODES - 1
    return (
        f"By arithmetic: a frame costs {1000 * frame:.0f} us of a processor, both sides together. "
        f"With {NODES} nodes of {SLAVES_EACH} slaves, a processor each, an exchange of pairs has "
        f"{slaves * pairs:,} frames, {pairs} sent and {pairs} read by each slave: "
        f"{pairs * frame:.1f} ms and one delay. By way of each node it has "
        f"{2 * slaves + NODES * across:,}, {across} sent and {across} read by each node and "
        f"{2 * SLAVES_EACH} within it: {(across + 2 * SLAVES_EACH) * frame:.1f} ms, one delay, and "
        f"two more ways through a process, if it only passes them on."
    )


if __name__ == "__main__":
    main()
