"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource


def allow_descriptors(most: int) -> int:
    """Allow this process ``most`` descriptors, or as many as it may have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
