"""Measures this project beside the bare limits: ``python -m tests.benchmarks [WORKLOAD ...]``.

Each round runs every workload on every system, each in a new process, one after the other,
so that other load on the machine falls on all of them. Prints a table of medians, and with
--json writes a line a figure.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tests.benchmarks.measures import Figure
from tests.benchmarks.systems import PLAN
from tests.benchmarks.table import table

RUN_SECONDS = 300
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(PLAN)}")
    parser.add_argument("--systems", help="comma-separated; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line a figure")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it runs")
    args = parser.parse_args()
    if unknown := set(args.workloads) - set(PLAN):
        parser.error(f"no workload {sorted(unknown)}; there are {', '.join(PLAN)}")
    wanted = args.systems.split(",") if args.systems else None
    runs = [
        (workload, system)
        for workload in args.workloads or PLAN
        for system in PLAN[workload]
        if wanted is None or system in wanted
    ]
    prepare()
    _warm_up({system for workload, system in runs if workload in ("w1", "w8")})
    with open(args.json or os.devnull, "a") as out:
        print(table(_measured(runs, args.rounds, args.tiny, out)))


def prepare() -> None:
    """See to it that no process under measurement compiles anything, or checks what it sends.

    A start is several times slower otherwise.
    """
    for name in ("PYTHONDONTWRITEBYTECODE", "CREAMAS_CHECK_LOCAL"):
        os.environ.pop(name, None)
    for folder in ("creamas_sc", "supervisor", "tests/benchmarks"):
        compileall.compile_dir(ROOT / folder, quiet=1)


def _warm_up(systems: set[str]) -> None:
    """Start each once, so that what it imports from elsewhere is compiled, too."""
    for system in sorted(systems):
        list(_run("w1", system, 0, tiny=True))


def _measured(
    runs: Sequence[tuple[str, str]], rounds: int, tiny: bool, out: IO[str]
) -> Iterator[Figure]:
    for number in range(rounds):
        for workload, system in runs:
            for figure in _run(workload, system, number, tiny):
                print(figure.to_json(), file=out, flush=True)
                yield figure
        print(f"round {number + 1} of {rounds}, {load()}", file=sys.stderr, flush=True)


def load() -> str:
    """How busy the machine is, in words; more than 1 before a run blurs it."""
    return f"load average {' '.join(f'{value:.2f}' for value in os.getloadavg())}"


def _run(workload: str, system: str, number: int, tiny: bool) -> Iterator[Figure]:
    command = [sys.executable, "-m", "tests.benchmarks.one", workload, system]
    command += ["--round", str(number), *(["--tiny"] if tiny else [])]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=RUN_SECONDS
    )
    yield from map(Figure.from_json, done.stdout.splitlines())


if __name__ == "__main__":
    main()
