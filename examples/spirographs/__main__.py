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

from creamas_sc import prestart, run

from .report import contact_sheet, effects_plot, table
from .society import SOCIETIES, Plan, Step, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the societies and show their progress; print a table and write two pictures.

    Ctrl-C ends the run; what there is by then is written.
    """
    options = _parse(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    plan = Plan(options.agents, options.steps, options.slaves, seed=seed)
    prestart("numpy")  # once, not in each slave of the three societies
    runs: dict[str, list[Step]] = {}
    started = time.monotonic()
    ended = 0
    try:
        for name, habits in SOCIETIES.items():
            run(simulate(plan, habits, _Progress(name, plan.steps, runs)))
    except KeyboardInterrupt:
        steps = [*runs.values()][-1] if runs else []
        written = "" if steps else ": nothing was written"
        print(f"\ninterrupted in step {len(steps) % plan.steps + 1}{written}", file=sys.stderr)
        ended = 130
    if runs:
        about = f"{plan.agents} agents, seed {plan.seed}"
        print(f"{about}, in {plan.slaves} slaves, {time.monotonic() - started:.1f} s\n")
        print(table(runs))
        name, steps = next(iter(runs.items()))
        contact_sheet(steps, options.out / "spirographs.png", f"{about}, {name}")
        effects_plot(runs, options.out / "effects.png", about)
        print(f"\nwrote {options.out / 'spirographs.png'} and {options.out / 'effects.png'}")
    return ended


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spirographs", description="Novelty-seeking societies invent spirographs."
    )
    default = Plan()
    for name, about in (
        ("agents", "agents in each society"),
        ("steps", "steps of each; every agent invents once in each"),
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
    """Keeps a society's steps, and shows how far it is.

    On a terminal that is one changing line, else a new line each second.

    Args:
        runs: Gets the steps, under the society's name.
    """

    def __init__(self, name: str, steps: int, runs: dict[str, list[Step]]) -> None:
        self._name = name
        self._steps = steps
        self._runs = runs
        self._published = 0
        self._shown = -math.inf

    def __call__(self, step: Step) -> None:
        self._runs.setdefault(self._name, []).append(step)
        self._published += len(step.published)
        last = step.number == self._steps
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if not last and now - self._shown < (0.05 if terminal else 1.0):
            return
        self._shown = now
        line = f"step {step.number}/{self._steps}, {self._published} published, {self._name}"
        end = "" if terminal and not last else "\n"
        print(f"\r{line}" if terminal else line, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
