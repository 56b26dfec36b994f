"""Painters on machines that can be reached with ssh, without a batch system.

Type ``python -m examples.cluster.ssh MACHINE [MACHINE ...]``: each runs a worker of dask, the first
one its scheduler too. You need to get in with a key, and without being asked anything; on each the
same Python, at the same path, has creamas_sc with the extras ``supervisor`` and ``dask``, and the
folder ``~/.creamas`` is one that they share, for certificates.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dask.config
from distributed import SSHCluster
from distributed.security import Security

from examples.cluster.society import paint


def main() -> None:
    """Start the cluster and run the painters on it."""
    machines = sys.argv[1:]
    use_tls(Path.home() / ".creamas" / "dask")
    # Others of asyncssh.connect(...): username=, port=, client_keys=, known_hosts=
    options = {"login_timeout": 10}
    with SSHCluster(
        [machines[0], *machines],
        connect_options=options,
        scheduler_options={"protocol": "tls", "dashboard": False},
        worker_options={"nthreads": 1, "protocol": "tls"},
    ) as cluster:
        paint(cluster, slaves=2 * len(machines))


def use_tls(folder: Path) -> None:
    """Have dask use TLS, with a certificate in files of a folder: ``security=True`` has none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Security.temporary()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    for path, text in ((certificate, made.tls_ca_file), (key, made.tls_client_key)):
        path.touch(mode=0o600)
        path.write_text(str(text))
    values: dict[str, object] = {"require-encryption": True, "tls.ca-file": str(certificate)}
    for role in ("client", "scheduler", "worker"):
        values |= {f"tls.{role}.cert": str(certificate), f"tls.{role}.key": str(key)}
    dask.config.set({f"distributed.comm.{name}": value for name, value in values.items()})


if __name__ == "__main__":
    main()
