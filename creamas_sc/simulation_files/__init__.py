"""Simulations and studies in TOML files.

::

    # simulation.toml
    seed = 1
    calls = "rounds"
    steps = 100

    [slaves]
    number = 2

    [agents.Painter]
    class = "painters.py:Painter"
    number = 24
    arguments = { curiosity = 0.3 }

    [connections]
    graph = "watts_strogatz_graph"
    arguments = { k = 4, p = 0.1 }

    [record]
    folder = "results"

``creamas-supervisor create NAME simulation.toml`` creates it in the daemon. In a script::

    from creamas_sc.simulation_files import build

    with build("simulation.toml") as menv:
        ...

All keys but ``agents.*.class`` and ``.number``, and the number of slaves, may be left out:

* ``folder``: the working folder of the processes, relative to the file; by default the file's own.
  All other paths are relative to it, and modules are looked for there.
* ``seed``, ``calls`` and ``restart``, as of `MultiEnvironment`; ``restart`` may be a table with
  ``mode``, ``restarts`` and ``seconds``.
* ``steps``: how many the daemon takes, from the creation on.
* ``[environment]``: ``class`` (a `MultiEnvironment`), ``environment`` and ``manager`` (the classes
  within it), ``address`` ("host:port"), ``arguments`` (of the environment).
* ``[slaves]``: ``number``, or ``addresses``; ``environment`` and ``manager`` (classes);
  ``arguments`` of the environments: a table, or a list of one for each; ``place``: "here",
  "nodes", the name of a node, or a list of one for each; ``nodes``: how many must have joined
  before.
* ``[agents.NAME]``: ``class`` ("package.module:Class" or "file.py:Class"), ``number``,
  ``arguments``. They are spawned in the order of the file, evenly over the slaves.
* ``[connections]``: ``graph``, a generator of NetworkX (extra ``nx``), and its ``arguments``. Its
  ``n`` is the number of agents and its ``seed`` follows from the simulation's, unless they are
  given. The agents are the nodes, in the order of spawning. Or ``random``: how many others each
  agent is connected to.
* ``[record]``: ``folder``, ``metrics`` ("package.module:function"), ``observe_every``,
  ``connections_every``, ``checkpoint_every``, ``checkpoint_seconds`` and ``checkpoints_kept``, as
  of `creamas_sc.results.Record`.

A study, run by ``creamas-supervisor sweep study.toml`` or `Experiment.from_file`, adds::

    [study]
    simulation = "simulation.toml"  # relative to this file; without it, the keys above are in it
    folder = "study"
    steps = 100
    replicates = 10
    seed = 1

    [study.parameters]
    slaves.number = [1, 2]
    agents.Painter.curiosity = [0.1, 0.5, 0.9]

A parameter is a key, or an argument of agents: ``agents.Painter.curiosity`` is short for
``agents.Painter.arguments.curiosity``. What the runs record is in the study's folder; ``seed``,
``steps`` and ``record.folder`` of the simulation do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from creamas_sc.runtime.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from creamas_sc.simulation_files.building import build

__all__ = ["build"]

__getattr__, __dir__ = lazy_attributes(__name__, {"building": ("build",)})
