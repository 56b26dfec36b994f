"""Run all rounds of the table of faults: ``python -m tests.faults [ROW ...]``.

The outcome of each round is appended to faults-out.jsonl; a second run continues after the last
one. Ctrl-C ends the run and prints the table so far. Rounds that ran on other sources are run
again, unless ``--older`` lets them count; the table then names their sources. The exit status is 0
if all rounds ran and none failed, 1 if one failed, 130 after Ctrl-C.
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
from pathlib import Path

from tests.faults import cases
from tests.faults.outcomes import Outcome, Record, version
from tests.faults.programs import reap_orphans
from tests.faults.registry import ROWS, Row
from tests.faults.report import report
from tests.support.processes import adopt_orphans

OUT = Path("faults-out.jsonl")
INTERRUPTED = 130


def main() -> int:
    """Run the chosen rounds that have not run yet, then print the table."""
    args = _arguments()
    if args.fresh:
        OUT.unlink(missing_ok=True)
    adopt_orphans()
    # Do not print what the injected faults make this process log.
    logging.getLogger().addHandler(logging.NullHandler())
    # Each of hundreds of processes would compile the project again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # In the background of a shell SIGINT is ignored, also by what this process starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    record = Record(OUT, version(), args.older)
    chosen = [ROWS[number] for number in args.rows or sorted(ROWS)]
    interrupted = False
    try:
        for each in chosen:
            _run_row(each, args.rounds or each.rounds, record)
    except KeyboardInterrupt:
        interrupted = True
    print(report(chosen, args.rounds, record))
    if interrupted:
        return INTERRUPTED
    return 1 if any(outcome.error for each in chosen for outcome in record.of(each.number)) else 0


def _arguments() -> argparse.Namespace:
    assert cases.__doc__
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__.partition("\n\n")[2],
        epilog="rows: " + "; ".join(f"{number} {ROWS[number].fault}" for number in sorted(ROWS)),
    )
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help="all by default")
    parser.add_argument("--rounds", type=int, help="of each row, in place of its own number")
    parser.add_argument("--fresh", action="store_true", help="forget what ran before")
    parser.add_argument("--older", action="store_true", help="count what ran on other sources")
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"no row {sorted(unknown)}; there are {sorted(ROWS)}")
    return args


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


if __name__ == "__main__":
    sys.exit(main())
