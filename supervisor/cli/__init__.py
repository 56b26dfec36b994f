"""The command ``creamas-supervisor``: a daemon, and the simulations in it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line says; returns the exit code that ``--help`` documents.

    Args:
        argv: Words after the command's name; this process's by default.
    """
    try:
        # Here, so that a Ctrl-C in the middle of the imports is as quiet as any other.
        from supervisor.cli.command import command
    except KeyboardInterrupt:
        print("creamas-supervisor: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return command(sys.argv[1:] if argv is None else list(argv))
