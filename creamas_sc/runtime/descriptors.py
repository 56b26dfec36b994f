"""The descriptors of this process: the first three, and how many it may have."""

from __future__ import annotations

import os

STANDARD = (0, 1, 2)
# Each process of a simulation needs some for each slave, a host for each client, and agents open
# files of their own.
WANTED = 4096


def allow_descriptors(most: int = WANTED) -> int:
    """Allow this process ``most`` descriptors, or as many as it may have; returns how many."""
    import resource  # here, as clients on other systems import this module

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def open_standard_descriptors() -> None:
    """Open those of standard input, output and error that are closed on /dev/null.

    Otherwise a socket or file gets such a number, and child processes print into it.
    """
    fd = os.open(os.devnull, os.O_RDWR)
    while fd in STANDARD:
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
