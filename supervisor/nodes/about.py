"""What a node says of itself and its machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from creamas_sc.runtime.installation import installed_version
from creamas_sc.supervisor_client.messages import NodeAbout

_CGROUPS = Path("/sys/fs/cgroup")


def describe(name: str, instance: str, host: str, cores: int | None, engine: str) -> NodeAbout:
    """What this process says of itself when it joins.

    Args:
        name, instance, host, engine: As of `NodeAbout`.
        cores: What it offers; None for all that it may use.
    """
    return {
        "name": name,
        "instance": instance,
        "host": host,
        "pid": os.getpid(),
        "cores": len(os.sched_getaffinity(0)) if cores is None else cores,
        "memory": memory(),
        "engine": engine,
        "version": installed_version(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }


def memory() -> int:
    """How many bytes of memory this process and its children may have: a job has its limit."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits()])


def _limits() -> Iterator[int]:
    """The limits of this process's control groups, from its own to the highest."""
    try:
        own = Path("/proc/self/cgroup").read_text().partition("0::/")[2].partition("\n")[0]
    except OSError:
        return
    group = _CGROUPS / own
    for each in (group, *group.parents):
        try:
            limit = (each / "memory.max").read_text().strip()
        except OSError:  # the highest has none
            continue
        if limit.isdecimal():
            yield int(limit)
