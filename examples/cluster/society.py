"""What the scripts of this folder run: painters, on the machines that they get."""

from __future__ import annotations

from collections import Counter
from typing import Any

from creamas_sc import Environment, EnvManager, MultiEnvironment, run
from examples.painters import Painter


def paint(nodes: Any, slaves: int = 6, painters: int = 24, steps: int = 10) -> None:
    """Have painters paint, and tell on which machines.

    Args:
        nodes: As of `MultiEnvironment`.
    """
    with MultiEnvironment(("localhost", 0), Environment, seed=1, nodes=nodes) as menv:
        run(menv.spawn_slaves(slaves, Environment, EnvManager))
        for _ in range(painters):
            run(menv.spawn(Painter))
        for _ in range(steps):
            run(menv.trigger_all())
        for node in menv.get_nodes():
            print(f"{node['name']}: {node['processes']} slaves, {node['cores']} cores")
        best = Counter(artifact.creator for artifact in menv.artifacts).most_common(1)
        print(f"{len(menv.artifacts)} colours, {best[0][1]} of them by {best[0][0]}")
