"""W10: a script that imports much and runs several simulations, one after the other.

As a program, that script: ``python -m tests.benchmarks.imports SYSTEM SLAVES RUNS PRESTART``
prints the seconds of all runs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec

__all__ = ["w10"]

MODULES = [name for name in ("matplotlib", "networkx", "pandas") if find_spec(name) is not None]
if __name__ == "__main__" and sys.argv[4] == "True":
    import creamas_sc

    creamas_sc.prestart(*MODULES)
if __name__ != "tests.benchmarks.imports":  # in slaves too, as it is their script
    for _name in MODULES:
        import_module(_name)

from tests.benchmarks.agents import Tally  # noqa: E402
from tests.benchmarks.systems import make  # noqa: E402
from tests.benchmarks.workloads import Report, Sizes  # noqa: E402


class Counter(Tally):
    """An agent of the script's own."""


def w10(name: str, report: Report, sizes: Sizes) -> None:
    """Simulations of a script that imports matplotlib, networkx and pandas, as far as installed."""
    if len(MODULES) < 3:
        print(f"w10: only {MODULES} are installed", file=sys.stderr)
    for prestart in (False, True) if name != "fork" else (False,):
        command = [sys.executable, "-m", "tests.benchmarks.imports", name, str(sizes.imports[0])]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, str(sizes.imports[1]), str(prestart)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        report("script", time.perf_counter() - began, "s", prestart=prestart)
        report("simulations", float(done.stdout), "s", prestart=prestart)


def main() -> None:
    """Run the simulations, each with agents in all its slaves."""
    name, slaves, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    system = make(name, slaves)
    began = time.perf_counter()

    async def simulate() -> None:
        for _ in range(runs):
            await system.start()
            for _ in range(slaves):
                await system.spawn_one("Counter" if name == "fork" else "__main__:Counter")
            await system.trigger_all()
            await system.stop()

    system.setup()
    system.run(simulate)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
