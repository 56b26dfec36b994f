"""Experiments: a simulation run again and again with other parameters and seeds.

::

    from creamas_sc import Environment, Experiment, Simulation

    def build(parameters, seed):
        env = Environment.create(("localhost", 0))
        env.seed = seed
        for _ in range(20):
            Painter(env, curiosity=parameters["curiosity"])
        return Simulation(env)

    study = Experiment(build, {"curiosity": [0.1, 0.5, 0.9]}, steps=100, replicates=10, seed=1,
                       folder="study")
    study.run()
    study.results().plot("novelty", by="curiosity")

A study may also be a TOML file, without any ``build``: see `creamas_sc.simulation_files`.

**A run** is one combination of parameters with one number among its replicates. Its key, the hash
of the three and of the name of ``build``, and the experiment's seed decide its own seed. So to add
a value or a replicate changes no other run.

**The ledger**, ``experiment.sqlite`` in the folder, has a row for each run: planned, running, done,
failed (with the error and its traceback) or lost (its process ended). `Experiment.run` takes what
is not done, in several processes side by side, and may be called again whenever it was stopped, by
Ctrl-C, a kill or a crash. What each run records is in ``runs/KEY``; `creamas_sc.results.open` reads
all of them.

**On a cluster.** ``study.run(executor=client)``, with a client of dask.distributed (extra
``dask``), gives each run to the cluster as a task, which a worker takes in a process of its own.
All of them wait there at once, or as many as ``workers=`` says. If a worker is killed, or its
machine, dask gives its runs to others, three times each, and the ledger says no more of it; a run
that crashes costs no worker, and is noted as lost. After Ctrl-C a run ends within seconds, and so
it does with its worker. If the scheduler is lost, `Experiment.run` raises. Files are found by their
paths: the experiment's folder and the code have to be on a file system that all machines share, and
creamas_sc in the Python of the workers. See ``examples/cluster``.

**Edited code.** Runs of different code do not mix: `Experiment.run` refuses if the file of
``build``, or one that it imports, has changed since, even in a comment. So keep plots in a script
of their own, with `creamas_sc.results.open`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from creamas_sc.runtime.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from creamas_sc.experiments.experiment import Experiment, Progress

__all__ = ["Experiment", "Progress"]

__getattr__, __dir__ = lazy_attributes(__name__, {"experiment": ("Experiment", "Progress")})
