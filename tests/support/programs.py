"""Run programs for tests as users do: to their end, or until a signal.

It imports nothing of the project: the client's tests use it too.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).parents[2]
BOUND_SECONDS = 30.0


def environ(**more: str) -> dict[str, str]:
    """The environment of a program that finds this project, and more variables."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def run(
    *command: str | Path,
    folder: Path = ROOT,
    seconds: float = BOUND_SECONDS,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its exit code is not checked.

    Args:
        env: Its environment; by default, `environ`.
    """
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environ() if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run_code(
    code: str,
    *arguments: str,
    options: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Python code in another process.

    Args:
        arguments: Its ``sys.argv[1:]``.
        options: Python's own.
        variables: More environment variables.
    """
    env = environ(**(variables or {}))
    return run(sys.executable, *options, "-c", code, *arguments, env=env)


def script_command(script: Path, *arguments: str) -> list[str]:
    """The command that runs a script; a resource that it leaves open is an error."""
    return [sys.executable, "-W", "error::ResourceWarning", str(script), *arguments]


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, in its own folder."""
    return run(*script_command(script, *arguments), folder=script.parent)


class Program:
    """A running command in a new process group; it is killed at the end of the block.

    Attributes:
        process: Its process; output is read with `read_until` and `finish`.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path = ROOT,
        *,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        env: dict[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ() if env is None else env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._unread: dict[IO[bytes], bytes] = {}  # what `read_until` has read beyond its line

    def read_until(
        self, word: str, seconds: float = BOUND_SECONDS, *, stream: IO[bytes] | None = None
    ) -> str:
        """Read lines until one contains ``word``; returns that line, without its end.

        Args:
            stream: Where to read; by default, standard output.
        """
        stream = stream or self.process.stdout
        assert stream is not None
        deadline = time.monotonic() + seconds
        while True:
            line, end, rest = self._unread.get(stream, b"").partition(b"\n")
            if end:
                self._unread[stream] = rest
                if word in (line + end).decode():
                    return line.decode()
                continue
            left = max(0.0, deadline - time.monotonic())
            assert select.select([stream], [], [], left)[0], f"no {word!r}, but {line!r}"
            data = os.read(stream.fileno(), 1 << 16)
            assert data, f"ended before {word!r}: {self.finish()}"
            self._unread[stream] = line + data

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to its group as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def finish(self, seconds: float = BOUND_SECONDS) -> tuple[int, str, str]:
        """Wait for the end; exit code, rest of the output, and standard error."""
        streams = self.process.stdout, self.process.stderr
        texts = []
        for stream, rest in zip(streams, self.process.communicate(timeout=seconds), strict=True):
            unread = b"" if stream is None else self._unread.get(stream, b"")
            texts.append((unread + (rest or b"")).decode())
        return self.process.returncode, texts[0], texts[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self.process:  # closes its pipes, which forked processes may keep open, and waits
            self.process.kill()


@contextmanager
def running_script(script: Path, *arguments: str) -> Iterator[Program]:
    """Run a script in its own folder for the block."""
    with Program(script_command(script, *arguments), script.parent) as program:
        yield program
