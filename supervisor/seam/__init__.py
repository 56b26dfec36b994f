"""The seam: the only importer of tractor. Its processes come from the zygote, its bytes go over
one inherited socketpair a child, and its errors stop here.
"""

from supervisor.seam.child import run_actor
from supervisor.seam.tree import (
    Actor,
    Died,
    Forker,
    Outcome,
    Simulation,
    Tree,
    first_of,
    open_tree,
)

__all__ = [
    "Actor",
    "Died",
    "Forker",
    "Outcome",
    "Simulation",
    "Tree",
    "first_of",
    "open_tree",
    "run_actor",
]
