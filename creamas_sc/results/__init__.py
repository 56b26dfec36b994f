"""Records of simulations: each step in a database, readable while it runs and after a crash.

**Record.** ``record="folder"`` of `MultiEnvironment`, `Environment`, `Simulation` and the daemon's
``create`` writes a run into a file of its own in that folder, a step in one transaction; a `Record`
in its place says more. What agents and the whole are in a step, optional methods say::

    class Painter(CreativeAgent):
        def observe(self):  # a plain method
            return {"novelty": self.novelty, "style": self.style}

    class Society(MultiEnvironment):
        async def observe(self):
            return {"artifacts": len(self.artifacts)}

Scalars only: int, float, str, bool, None. Artifacts are recorded as they are published, connections
where agents change them by their methods, losses and restarts of slaves as events.

**Read.** `open` reads a folder or a file, also of a simulation that runs::

    results = creamas_sc.results.open("folder")
    results.agents.to_pandas()      # or to_polars, to_arrow, to_parquet, to_csv
    results.filter(run="run-2", step=range(10, 20)).artifacts
    results.plot("novelty", by="alpha")

**Go on.** With ``Record("folder", checkpoint_every=10)`` a run can go on after its processes were
killed, as if they had not been, at any number of slaves::

    with creamas_sc.resume("folder") as menv:
        for _ in range(menv.steps_taken, 1000):
            run(menv.trigger_all())

A checkpoint has what agents hold, with their random generators and connections; the artifacts; and
the attributes that users' classes of environments, managers and multi-environment have added, or
what their ``checkpoint()`` returns, for ``restore(state)``. What cannot be kept, as locks and open
files, is refused before the first step: leave it out with ``__getstate__`` and ``__setstate__``.
Once a slave is lost that is not restarted, no more are written: the run goes on from where it was
whole.
`creamas_sc.branch` begins another run at a checkpoint.

Tables and columns: `creamas_sc.results.schema`. pyarrow is in the extra "results", and what `plot`
needs in "plot"; pandas and polars are in neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from creamas_sc.runtime.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from creamas_sc.results.reader import Results, open
    from creamas_sc.results.record import Record
    from creamas_sc.results.tables import Table

__all__ = ["Record", "Results", "Table", "open"]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {"reader": ("Results", "open"), "record": ("Record",), "tables": ("Table",)},
    ("schema",),
)
