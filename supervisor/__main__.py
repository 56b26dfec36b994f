"""Starts the keeper, from wherever this package lies.

Run as a file, not with ``-m``: the caller's working folder and ``sys.path`` then have no say in
which `supervisor` that is.
"""

import os
import sys


def _start() -> int:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if root not in sys.path:
        sys.path.insert(0, root)
    from supervisor.keeper import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_start())
