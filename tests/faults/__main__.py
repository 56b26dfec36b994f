"""Runs the scoreboard's long form: ``python -m tests.faults [ROW ...] [--rounds N] [--fresh]``.

Each round's outcome is appended to a file as it ends; run again, it goes on after the last one.
``--fresh`` begins anew. The exit status is 1 if a round failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.faults import rows
from tests.faults.board import ROWS, Row
from tests.faults.scene import adopt_orphans

OUT = Path("faults-out.jsonl")
Outcome = dict[str, Any]


def main() -> int:
    """Run what is asked for and has not run yet, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=rows.__doc__)
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW")
    parser.add_argument("--rounds", type=int, help="of each row, in place of its own number")
    parser.add_argument("--fresh", action="store_true", help="forget what ran before")
    args = parser.parse_args()
    if args.fresh:
        OUT.unlink(missing_ok=True)
    adopt_orphans()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"no row {sorted(unknown)}; there are {sorted(ROWS)}")
    chosen = [ROWS[number] for number in args.rows or sorted(ROWS)]
    done = _done()
    with OUT.open("a") as out:
        for each in chosen:
            for number in range(args.rounds or each.rounds):
                if (each.number, number) in done:
                    continue
                outcome = _run(each, number)
                out.write(json.dumps(outcome) + "\n")
                out.flush()
                done[each.number, number] = outcome
                _show(each, number, args.rounds or each.rounds, outcome)
    print(_table(chosen, done.values()))
    return 1 if any(outcome["error"] for outcome in done.values()) else 0


def _done() -> dict[tuple[int, int], Outcome]:
    lines = OUT.read_text().splitlines() if OUT.exists() else []
    outcomes = map(json.loads, lines)
    return {(outcome["row"], outcome["round"]): outcome for outcome in outcomes}


def _run(each: Row, number: int) -> Outcome:
    case = each.case(number)
    outcome: Outcome = {"row": each.number, "round": number, "case": case, "error": ""}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            outcome["figures"] = each.once(case, number, Path(folder))
        except Exception as error:  # a failed round is counted, and the next one runs
            outcome["error"] = "".join(traceback.format_exception(error))
            outcome["figures"] = {}
    outcome["seconds"] = round(time.monotonic() - began, 3)
    return outcome


def _show(each: Row, number: int, rounds: int, outcome: Outcome) -> None:
    if outcome["error"]:
        print(f"row {each.number}, round {number}, {outcome['case']}:", file=sys.stderr)
        print(outcome["error"], file=sys.stderr)
    elif sys.stderr.isatty():
        print(f"\rrow {each.number}: {number + 1} of {rounds}   ", end="", file=sys.stderr)


def _table(chosen: Iterable[Row], outcomes: Iterable[Outcome]) -> str:
    told = list(outcomes)
    lines = ["| # | fault | passes when | rounds | failed | largest |", "|---|---|---|---|---|---|"]
    for each in chosen:
        mine = [outcome for outcome in told if outcome["row"] == each.number]
        failed = sum(bool(outcome["error"]) for outcome in mine)
        names = {name for outcome in mine for name in outcome["figures"]}
        largest = ", ".join(
            f"{name} {max(o['figures'].get(name, 0.0) for o in mine):.4g}" for name in sorted(names)
        )
        cells = (each.number, each.fault, each.passes, len(mine), failed, largest)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
