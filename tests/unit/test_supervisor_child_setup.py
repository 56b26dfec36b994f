"""What a forked process does first."""

from __future__ import annotations

import subprocess
import sys

CLOSING = """
import os

def unavailable(*_):
    raise AssertionError("it takes seconds where the kernel has no call for it")

os.closerange = unavailable
from supervisor.tree.child_setup import close_all_but

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

opened = [os.open("/", os.O_RDONLY) for _ in range(9)]
kept = opened[::2]
close_all_but({0, 1, 2, *kept})
print([fd for fd in range(max(opened) + 9) if is_open(fd)] == [0, 1, 2, *kept])
"""


def test_what_is_open_is_closed_without_a_try_of_each_number() -> None:
    command = [sys.executable, "-c", CLOSING]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert told.stdout == "True\n"
