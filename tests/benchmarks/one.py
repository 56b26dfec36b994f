"""One workload on one system, in its own process: ``python -m tests.benchmarks.one w3 trio``.

Prints a line of JSON a figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.imports import w10
from tests.benchmarks.measures import Figure
from tests.benchmarks.starts import w1, w8
from tests.benchmarks.systems import make
from tests.benchmarks.workloads import FULL, TINY, WORKLOADS, Report, Sizes

SLAVES = 2
FROM_OUTSIDE: dict[str, Callable[[str, Report, Sizes], None]] = {"w1": w1, "w8": w8, "w10": w10}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workload", choices=sorted({*WORKLOADS, *FROM_OUTSIDE}))
    parser.add_argument("system")
    parser.add_argument("--round", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it runs")
    args = parser.parse_args()
    sizes = TINY if args.tiny else FULL

    def report(metric: str, value: float, unit: str, **params: Any) -> None:
        figure = Figure(args.system, args.workload, metric, value, unit, params, args.round)
        print(figure.to_json(), flush=True)

    system = make(args.system, SLAVES)
    with system.surroundings(args.system):
        if args.workload in FROM_OUTSIDE:
            FROM_OUTSIDE[args.workload](args.system, report, sizes)
        else:
            system.setup()
            system.run(partial(WORKLOADS[args.workload], system, report, sizes))


if __name__ == "__main__":
    main()
