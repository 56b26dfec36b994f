"""Runs the scoreboard's long form: ``python -m tests.faults [ROW ...]``.

Each round's outcome is appended to faults-out.jsonl as it ends; run again, it goes on after the
last one. Ctrl-C ends it with the table so far. Rounds that ran on other sources than these are run
again, unless ``--older`` lets them count, and then the table says which. The exit status is 0 if
all rounds ran and none failed, 1 if one failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.faults import rows
from tests.faults.board import ROWS, Row
from tests.faults.record import Outcome, Record, version
from tests.faults.scene import adopt_orphans, reap_orphans

OUT = Path("faults-out.jsonl")
INTERRUPTED = 130


def main() -> int:
    """Run what is asked for and has not run yet, then print the table."""
    args = _arguments()
    if args.fresh:
        OUT.unlink(missing_ok=True)
    adopt_orphans()
    # What a fault makes this process log is no news here.
    logging.getLogger().addHandler(logging.NullHandler())
    # Each of hundreds of processes would compile the project anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # In a shell's background it would be ignored, by whatever this starts as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    record = Record(OUT, version(), args.older)
    chosen = [ROWS[number] for number in args.rows or sorted(ROWS)]
    interrupted = False
    try:
        for each in chosen:
            _run_row(each, args.rounds or each.rounds, record)
    except KeyboardInterrupt:
        interrupted = True
    print(_report(chosen, args.rounds, record))
    if interrupted:
        return INTERRUPTED
    return 1 if any(outcome.error for each in chosen for outcome in record.of(each.number)) else 0


def _arguments() -> argparse.Namespace:
    assert rows.__doc__
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__.partition("\n\n")[2],
        epilog="rows: " + "; ".join(f"{each.number} {each.fault}" for each in _all_rows()),
    )
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help="all by default")
    parser.add_argument("--rounds", type=int, help="of each row, in place of its own number")
    parser.add_argument("--fresh", action="store_true", help="forget what ran before")
    parser.add_argument("--older", action="store_true", help="count what ran on other sources")
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"no row {sorted(unknown)}; there are {sorted(ROWS)}")
    return args


def _all_rows() -> list[Row]:
    return [ROWS[number] for number in sorted(ROWS)]


def _run_row(each: Row, rounds: int, record: Record) -> None:
    for number in range(rounds):
        if (each.number, number) not in record:
            outcome = _run(each, number, record.version)
            record.add(outcome)
            _show(outcome, rounds)


def _run(each: Row, number: int, version: str) -> Outcome:
    outcome = Outcome(each.number, number, each.case(number), version)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            outcome.figures = each.once(outcome.case, number, Path(folder))
        except BaseException as error:  # a failed round is counted, and the next one runs
            if _is_ctrl_c(error):
                raise KeyboardInterrupt from None
            outcome.error = "".join(traceback.format_exception(error))
    reap_orphans()
    outcome.seconds = round(time.monotonic() - began, 3)
    return outcome


def _is_ctrl_c(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_ctrl_c, error.exceptions))
    return isinstance(error, KeyboardInterrupt)


def _show(outcome: Outcome, rounds: int) -> None:
    if outcome.error:
        print(f"row {outcome.row}, round {outcome.round}, {outcome.case}:", file=sys.stderr)
        print(outcome.error, file=sys.stderr)
    elif sys.stderr.isatty():
        print(f"\rrow {outcome.row}: {outcome.round + 1} of {rounds}   ", end="", file=sys.stderr)


# ---- what is told


def _report(chosen: Sequence[Row], rounds: int | None, record: Record) -> str:
    lines = [
        "| # | fault | passes when | rounds | failed | minutes | largest; totals |",
        "|---|---|---|---|---|---|---|",
    ]
    failures, versions = [], Counter[str]()
    for each in chosen:
        mine = record.of(each.number)
        lines.append(_line(each, rounds or each.rounds, mine))
        failures += [_failure(outcome) for outcome in mine if outcome.error]
        versions.update(outcome.version for outcome in mine)
    ran = [f"{count} rounds on {version}" for version, count in versions.items()]
    if len(ran) > 1:
        ran.insert(0, f"Not of one version; now it is {record.version}:")
    return "\n".join([*lines, "", *ran, *failures])


def _line(each: Row, rounds: int, outcomes: Sequence[Outcome]) -> str:
    failed = sum(bool(outcome.error) for outcome in outcomes)
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    told = each.told([outcome.figures for outcome in outcomes])
    of = f"{len(outcomes)} of {rounds}"
    cells = (each.number, each.fault, each.passes, of, failed, f"{minutes:.1f}", told)
    return f"| {' | '.join(map(str, cells))} |"


def _failure(outcome: Outcome) -> str:
    last = outcome.error.strip().splitlines()[-1]
    return f"failed: row {outcome.row}, round {outcome.round}, {outcome.case}: {last}"


if __name__ == "__main__":
    sys.exit(main())
