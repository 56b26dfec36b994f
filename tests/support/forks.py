"""Forked children of tests and of agents."""

from __future__ import annotations

import os


def exit_code_of(pid: int) -> int:
    """Wait for the end of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
