"""Command line of the example: ``python -m examples.spirographs --help``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from creamas_sc.util import run

from .report import contact_sheet, novelty_plot, table
from .society import Plan, Step, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a society and show its progress; print a table and write two pictures."""
    options = _parse(arguments)
    plan = Plan(options.agents, options.steps, options.slaves, seed=options.seed)
    started = time.monotonic()
    try:
        steps = run(simulate(plan, _Progress(plan.steps)))
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 130
    print(f"{plan.agents} agents in {plan.slaves} slaves, {time.monotonic() - started:.1f} s\n")
    print(table(steps))
    options.out.mkdir(parents=True, exist_ok=True)
    contact_sheet(steps, options.out / "spirographs.png")
    novelty_plot(steps, options.out / "novelty.png")
    print(f"\nwrote {options.out / 'spirographs.png'} and {options.out / 'novelty.png'}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spirographs", description="A novelty-seeking society invents spirographs."
    )
    default = Plan()
    for name, about in (
        ("agents", "agents in the society"),
        ("steps", "steps; every agent invents once in each"),
        ("slaves", "processes that the agents are spread over"),
    ):
        value = getattr(default, name)
        about = f"{about} (default: {value})"
        parser.add_argument(f"--{name}", type=_positive, default=value, metavar="N", help=about)
    parser.add_argument("--seed", type=int, metavar="N", help="make the run repeatable")
    folder = Path("spirographs-out")
    about = f"folder for the pictures (default: {folder})"
    parser.add_argument("--out", type=Path, default=folder, metavar="FOLDER", help=about)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


class _Progress:
    """Shows how far the run is: one changing line on a terminal, else a new line each second."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._published = 0
        self._shown = -math.inf

    def __call__(self, step: Step) -> None:
        self._published += len(step.published)
        last = step.number == self._steps
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if not last and now - self._shown < (0.05 if terminal else 1.0):
            return
        self._shown = now
        line = f"step {step.number}/{self._steps}, {self._published} published"
        end = "" if terminal and not last else "\n"
        print(f"\r{line}" if terminal else line, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
