"""Logging of a daemon's processes: JSON lines in a file, readable lines on a terminal.

Each line has the ids of the process (``simulation``, ``slave``, ``pid``) and of its current work
(``request``). A line is one write to a file opened for appending, so that several processes can
share a file without mixing their lines. If a write fails, only its line is lost. Files have a
limited size: see `creamas_sc.runtime.log_files`.

Texts may come from anyone: they are cut to `VALUE_LENGTH`, and no control character of theirs
reaches a terminal.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from creamas_sc.foreign import printable, printable_json, shorten, traceback_of
from creamas_sc.runtime.log_files import keep_to_limit, open_log_file

FILE_VARIABLE = "CREAMAS_LOG_FILE"
SIMULATION_VARIABLE = "CREAMAS_SIMULATION"

STDOUT, STDERR = 1, 2
# How much, or how long, a process writes until it looks whether its log is full or was moved on.
CHECK_BYTES = 4096
CHECK_SECONDS = 0.1
VALUE_LENGTH = 100_000  # characters
FIRST_KEYS = ("timestamp", "level", "event", "logger")

Event = MutableMapping[str, Any]


def open_log(file: str | None, *, console: bool = False, **ids: Any) -> None:
    """Send what `logging` and structlog get, from level INFO up, to a file and the console.

    Args:
        file: JSON lines are appended to it; created with its folder, for this user only.
        console: Show lines on standard error too: readable on a terminal, else as JSON.
        **ids: Included in every line; those that are None are left out.

    Raises:
        OSError: ``file`` cannot be opened.
    """
    handlers = []
    if file is not None:
        formatter = _formatter(ids, readable=False)
        handlers.append(_LineHandler(open_log_file(file), formatter, file))
    if console:
        formatter = _formatter(ids, readable=os.isatty(STDERR))
        handlers.append(_LineHandler(os.dup(STDERR), formatter))
    close_log()
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO)

    import structlog

    structlog.configure(
        processors=[*_first_processors(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def close_log() -> None:
    """Undo `open_log`; does nothing if it was not called."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _LineHandler)]:
        root.removeHandler(handler)
        handler.close()


def open_actor_log(**ids: Any) -> None:
    """Log to the file named by ``CREAMAS_LOG_FILE``; does nothing without it.

    What this process and its children print goes there too, unchanged. If the file cannot be
    opened, nothing changes and one line says so on standard error.
    """
    file = os.environ.get(FILE_VARIABLE)
    if not file:
        return
    try:
        open_log(file, simulation=os.environ.get(SIMULATION_VARIABLE), pid=os.getpid(), **ids)
        descriptor = open_log_file(file)
    except OSError as error:
        print(f"cannot log into {file}: {error}", file=sys.stderr)
        return
    _print_into(descriptor, file)


@contextmanager
def bound(**ids: Any) -> Iterator[None]:
    """Include ids in the lines that the running task logs in the block."""
    structlog = sys.modules.get("structlog")
    if structlog is None:  # no log was opened here
        yield
        return
    with structlog.contextvars.bound_contextvars(**ids):
        yield


class _LossyFile(io.FileIO):
    """A file, or standard output or error, that drops what it cannot write.

    Attributes:
        log: Path of the log that it writes, kept to its limit; empty if it is none.
    """

    log = ""
    _unchecked = 0
    _checked_at = 0.0

    def write(self, data: Any) -> int:
        if self.log:
            self._unchecked += memoryview(data).nbytes
            now = time.monotonic()
            if self._unchecked > CHECK_BYTES or now > self._checked_at + CHECK_SECONDS:
                self._unchecked, self._checked_at = 0, now
                with suppress(OSError, ValueError):  # it goes on with the file that it has
                    keep_to_limit(self.fileno(), self.log)
        try:
            return super().write(data)
        except (OSError, ValueError):  # the disk is full, the terminal gone, or the file closed
            return memoryview(data).nbytes


class _LineHandler(logging.Handler):
    """Appends lines to a descriptor, which it owns; each with one write."""

    def __init__(self, descriptor: int, formatter: logging.Formatter, log: str = "") -> None:
        super().__init__()
        self._file = _LossyFile(descriptor, "w")
        self._file.log = log
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n"
        except Exception:  # arguments that do not fit the message: report the caller's mistake
            self.handleError(record)
            return
        self._file.write(line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        self.acquire()
        self._file.close()
        self.release()
        super().close()


def _print_into(descriptor: int, log: str) -> None:
    """Make ``descriptor`` this process's standard output and error."""
    for number, name in ((STDOUT, "stdout"), (STDERR, "stderr")):
        with suppress(AttributeError, OSError, ValueError):  # there was none, or it is closed
            getattr(sys, name).flush()
        os.dup2(descriptor, number)
        file = _LossyFile(number, "w", closefd=False)
        file.log = log
        # Flushed at the end of each line, so that lines of several processes are not mixed.
        text = io.TextIOWrapper(
            io.BufferedWriter(file), "utf-8", "backslashreplace", line_buffering=True
        )
        setattr(sys, name, text)
    os.close(descriptor)


def _formatter(ids: Event, *, readable: bool) -> logging.Formatter:
    from structlog.stdlib import ProcessorFormatter

    known = {name: value for name, value in ids.items() if value is not None}

    def add_ids(_logger: Any, _method: str, event: Event) -> Event:
        first = {key: event[key] for key in FIRST_KEYS if key in event}
        event = {**first, **known, **event}
        return {k: shorten(v, VALUE_LENGTH) if type(v) is str else v for k, v in event.items()}

    last: list[Callable[..., Any]]
    if readable:
        from structlog.dev import ConsoleRenderer

        colors = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        last = [
            lambda _logger, _method, event: {key: _lines(value) for key, value in event.items()},
            ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=0),
        ]
    else:
        from structlog.processors import JSONRenderer

        render = JSONRenderer(default=repr, ensure_ascii=False)
        last = [lambda *args: printable_json(str(render(*args)))]
    return ProcessorFormatter(
        foreign_pre_chain=_first_processors(),
        processors=[ProcessorFormatter.remove_processors_meta, _describe_exception, add_ids, *last],
    )


def _describe_exception(_logger: Any, _method: str, event: Event) -> Event:
    raised = event.pop("exc_info", None)
    if raised:
        error = raised if isinstance(raised, BaseException) else sys.exc_info()[1]
        error = raised[1] if isinstance(raised, tuple) else error
        event["exception"] = "" if error is None else traceback_of(error).rstrip()
    return event


def _lines(value: Any) -> Any:
    """A text for a terminal: its second line and the following ones are indented."""
    return "\n    ".join(map(printable, value.splitlines())) if type(value) is str else value


def _first_processors() -> list[Callable[..., Any]]:
    from structlog.contextvars import merge_contextvars
    from structlog.processors import TimeStamper
    from structlog.stdlib import add_log_level, add_logger_name

    return [merge_contextvars, add_log_level, add_logger_name, TimeStamper("iso", utc=True)]
