"""Command line of the example: ``python -m examples.spirographs --help``."""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from creamas_sc.util import run

from .report import contact_sheet, novelty_plot, table
from .society import Plan, Step, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a society and show its progress; print a table and write two pictures.

    Ctrl-C ends the run; what there is by then is written.
    """
    options = _parse(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    plan = Plan(options.agents, options.steps, options.slaves, seed=seed)
    steps: list[Step] = []
    progress = _Progress(plan.steps)

    def note(step: Step) -> None:
        steps.append(step)
        progress(step)

    started = time.monotonic()
    try:
        run(simulate(plan, note))
    except KeyboardInterrupt:
        written = "" if steps else ": nothing was written"
        print(f"\ninterrupted in step {len(steps) + 1}{written}", file=sys.stderr)
    about = f"{plan.agents} agents in {plan.slaves} slaves, seed {plan.seed}"
    if steps:
        print(f"{about}, {time.monotonic() - started:.1f} s\n")
        print(table(steps))
        contact_sheet(steps, options.out / "spirographs.png", about)
        novelty_plot(steps, options.out / "novelty.png", about)
        print(f"\nwrote {options.out / 'spirographs.png'} and {options.out / 'novelty.png'}")
    return 0 if len(steps) == plan.steps else 130


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
    about = "make the run repeatable (default: one is drawn, and shown)"
    parser.add_argument("--seed", type=_seed, metavar="N", help=about)
    folder = Path("spirographs-out")
    about = f"folder for the pictures (default: {folder})"
    parser.add_argument("--out", type=Path, default=folder, metavar="FOLDER", help=about)
    options = parser.parse_args(arguments)
    try:  # before the run: its pictures would be lost
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        parser.error(f"--out {options.out} cannot be written: {error.strerror}")
    return options


def _positive(text: str) -> int:
    return _at_least(1, text)


def _seed(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
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
