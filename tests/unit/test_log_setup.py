"""The log of a daemon's process: whole JSON lines, and nothing that a full disk could break."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from creamas_sc.foreign import TRACEBACK_LENGTH
from creamas_sc.runtime.log_setup import VALUE_LENGTH, bound, close_log, open_log
from tests.support.programs import run_code

log = logging.getLogger("tests.process_log")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    close_log()
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_actor(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as an actor that has opened its log."""
    opened = "from creamas_sc.runtime.log_setup import *; open_actor_log(slave=2)\n"
    return run_code(opened + code, variables=environ)


def test_lines_carry_the_ids_and_what_was_said(tmp_path: Path) -> None:
    path = tmp_path / "daemon" / "novelty.log"
    open_log(str(path), simulation="novelty", slave=None, pid=7)
    log.info("slave %d is up: \n%s", 3, "é")
    log.debug("not from here on")
    (line,) = lines_of(path)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "slave 3 is up: \né",
        "logger": "tests.process_log",
        "simulation": "novelty",
        "pid": 7,
    }


def test_the_file_is_the_users_alone_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "daemon" / "novelty.log"
    for number in range(2):
        open_log(str(path))
        log.info("opened %d", number)
    assert [line["event"] for line in lines_of(path)] == ["opened 0", "opened 1"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_exception_is_text_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    open_log(str(path))
    try:
        raise ValueError("no such colour")
    except ValueError:
        log.exception("an act failed")
    (line,) = lines_of(path)
    assert line["exception"].endswith("ValueError: no such colour")


HOSTILE = "\x1b[2J \x9b2J\r\nINFO all is well\u2028"


def test_texts_of_others_are_bounded_and_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    open_log(str(path))
    try:
        raise ValueError("x" * 1_000_000)
    except ValueError:
        log.exception("%s", "y" * 1_000_000)
    log.warning("%s", HOSTILE)
    long, hostile = lines_of(path)
    assert len(long["event"]) < VALUE_LENGTH + 100
    assert len(long["exception"]) < TRACEBACK_LENGTH + 100
    assert hostile["event"] == HOSTILE
    assert not re.search("[\x7f-\x9f\u2028]", path.read_text())


def test_loggers_of_structlog_write_the_same_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    open_log(str(path), simulation="novelty")
    structlog.get_logger("mine").warning("lost", slave=3, value=object())
    (line,) = lines_of(path)
    assert (line["event"], line["slave"], line["simulation"]) == ("lost", 3, "novelty")
    assert line["value"].startswith("<object")


async def test_ids_are_bound_to_the_task(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    open_log(str(path))
    both = trio.Event()

    async def request(number: int) -> None:
        with bound(request=number):
            if number == 2:
                both.set()
            await both.wait()
            log.info("answered")
        log.info("after")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(request, 1)
        nursery.start_soon(request, 2)
    lines = lines_of(path)
    assert sorted(line["request"] for line in lines if line["event"] == "answered") == [1, 2]
    assert all("request" not in line for line in lines if line["event"] == "after")


def test_binding_needs_no_log() -> None:
    code = "import sys\nwith bound(request=1): print('structlog' in sys.modules)"
    assert run_actor(code).stdout == "False\n"


def test_an_actor_prints_into_its_log(tmp_path: Path) -> None:
    path = tmp_path / "novelty.log"
    done = run_actor(
        "import logging, os, sys\n"
        "print('printed', 'é\\udcff'); print('warned', file=sys.stderr); os.system('echo child')\n"
        "logging.getLogger('x').info('logged')\n"
        "raise SystemExit('the last')",
        CREAMAS_LOG_FILE=str(path),
        CREAMAS_SIMULATION="novelty",
    )
    assert (done.stdout, done.stderr) == ("", "")
    *raw, logged, last = path.read_text().splitlines()
    assert raw == ["printed é\\udcff", "warned", "child"]
    assert last == "the last"
    line = json.loads(logged)
    assert (line["simulation"], line["slave"], line["event"]) == ("novelty", 2, "logged")
    assert line["pid"] > 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_an_actor_stays_as_it_is() -> None:
    assert run_actor("print('here')").stdout == "here\n"


def test_a_full_disk_breaks_nothing() -> None:
    done = run_actor(
        "import logging, os, sys\n"
        "print('lost'); sys.stdout.write('no line'); logging.getLogger('x').info('lost too')\n"
        "sys.stdout.flush(); sys.exit(3)",
        CREAMAS_LOG_FILE="/dev/full",
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_a_file_that_cannot_be_opened_is_one_line() -> None:
    done = run_actor("print('here')", CREAMAS_LOG_FILE="/dev/null/novelty.log")
    assert done.returncode == 0
    assert done.stdout == "here\n"
    assert done.stderr.startswith("cannot log into /dev/null/novelty.log: ")
    assert done.stderr.count("\n") == 1


def test_the_console_is_json_when_it_is_no_terminal() -> None:
    code = "open_log(None, console=True, pid=7); import logging; logging.warning('careful')"
    line = json.loads(run_actor(code).stderr)
    assert (line["level"], line["event"], line["pid"]) == ("warning", "careful", 7)


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_the_console_is_readable_on_a_terminal(no_color: str, colored: bool) -> None:
    code = (
        "from creamas_sc.runtime.log_setup import *; open_log(None, console=True, pid=7)\n"
        "import logging; logging.warning('careful')\n"
        f"try: raise ValueError({HOSTILE!r})\n"
        f"except ValueError: logging.exception({HOSTILE!r}, extra=dict(who={HOSTILE!r}))"
    )
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NO_COLOR": no_color, "TERM": "xterm"},
            stderr=theirs,
            check=True,
        )
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "careful" in shown
    assert "pid" in shown
    assert "{" not in shown
    assert ("\x1b[" in shown) is colored
    assert shown.count(r"\x1b[2J \x9b2J") == 2
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown
    assert shown.count("INFO all is well") == shown.count("\r\n    INFO all is well") == 2
