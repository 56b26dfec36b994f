"""Painters on the machines of Slurm, which dask asks for.

Type ``python -m examples.cluster.slurm`` on a login node, in a clone in a file system that all
machines share. Change what a job needs: partition, account, cores, memory, time. A job is a machine
here: ``processes=1``. The script ends with its simulation, and the jobs with the script.

If login nodes cannot be reached from the others, run it within a job, or use ``srun.sh``.
"""

from __future__ import annotations

from pathlib import Path

from dask_jobqueue import SLURMCluster

from creamas_sc.nodes.dask_nodes import DaskNodes
from examples.cluster.society import paint

JOBS = 2


def main() -> None:
    """Submit the jobs, wait until they run, and run the painters on them."""
    shared = Path.home() / ".creamas"
    shared.mkdir(mode=0o700, exist_ok=True)
    with SLURMCluster(
        queue=None,  # the partition
        account=None,
        cores=4,
        memory="4GB",
        processes=1,
        walltime="00:10:00",
        job_extra_directives=[],  # more lines for #SBATCH, such as "--constraint=..."
        security=True,  # each connection has TLS
        shared_temp_directory=str(shared),  # for its certificates
        log_directory=str(shared),  # what the jobs print
    ) as cluster:
        cluster.scale(jobs=JOBS)
        paint(DaskNodes(cluster, count=JOBS, seconds=600), slaves=4 * JOBS)


if __name__ == "__main__":
    main()
