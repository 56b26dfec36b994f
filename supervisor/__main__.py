"""Starts the keeper, or a daemon in the background, from wherever this package lies.

Run as a file, not with ``-m``: the caller's working folder and ``sys.path`` then have no say in
which `supervisor` that is.
"""

import os
import sys


def _start(argv: list[str]) -> int:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    known = root in sys.path
    sys.path.insert(0, root)
    import supervisor  # noqa: F401 - before a user's module with this name is found

    if known:
        del sys.path[0]
    if argv[:1] == ["daemon"]:
        from supervisor.daemon import process

        return process.main(argv[1:])
    from supervisor.tree import keeper

    os._exit(keeper.main(argv))  # an interpreter's own end takes longer than all of the keeper's


if __name__ == "__main__":
    sys.exit(_start(sys.argv[1:]))
