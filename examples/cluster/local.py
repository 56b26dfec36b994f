"""Painters beside three workers of a dask cluster, all of them on this machine.

Type ``python -m examples.cluster.local``, in the clone, with the extras ``supervisor`` and
``dask``. It shows what a script with a cluster of several machines does.
"""

from __future__ import annotations

from distributed import LocalCluster

from examples.cluster.society import paint


def main() -> None:
    """Start the cluster and run the painters on it."""
    with LocalCluster(
        n_workers=3, threads_per_worker=1, dashboard_address=None, security=True
    ) as cluster:
        paint(cluster)


if __name__ == "__main__":  # workers import this file
    main()
