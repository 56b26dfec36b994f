"""Painters on nodes that something else starts: ``srun.sh`` here, or you, by hand.

Type ``python -m examples.cluster.srun KEY_FILE PORT COUNT``. It waits for so many nodes: of
``creamas-supervisor node --join HOST:PORT --key-file KEY_FILE``, on any machine that reaches this
one at that port. The key file is made if there is none, and they need a copy of it.
"""

from __future__ import annotations

import sys

from creamas_sc.nodes import Nodes
from examples.cluster.society import paint


def main() -> None:
    """Wait for nodes, and run the painters on them."""
    key_file, port, count = sys.argv[1:]
    paint(Nodes(("0.0.0.0", int(port)), key_file=key_file, count=int(count), seconds=120))


if __name__ == "__main__":
    main()
