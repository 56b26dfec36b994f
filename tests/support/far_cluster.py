"""A dask cluster on machines: a scheduler beside the script, a nanny and its worker on each other.

They use TLS, with certificates in the society's folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.security import Security

from tests.support.far_society import SECONDS, FarSociety, wait_none
from tests.support.machines import Machine
from tests.support.programs import Program

__all__ = ["FarCluster", "client"]

PORT = 8786
FILES = ("tls_ca_file", "tls_client_cert", "tls_client_key")


def client(address: str, folder: Path) -> Any:
    """A client of the cluster whose files are in a folder."""
    files = {name: str(folder / name) for name in FILES}
    make: Any = Client  # dask's types are not complete
    return make(address, security=Security(require_encryption=True, **files), timeout=30.0)


class FarCluster(FarSociety):
    """A society whose nodes a dask cluster starts.

    Attributes:
        scheduler: Its program; `nodes` has the nannies'.
    """

    scheduler: Program

    def __init__(self, machines: list[Machine], folder: Path, **more: Any) -> None:
        address = f"tls://{machines[0].address}:{PORT}"
        super().__init__(machines, folder, scheduler=address, **more)

    def start_nodes(self) -> None:
        security = Security.temporary()
        for name in FILES:
            (self.folder / name).write_text(getattr(security, name))
        host = ["--host", self.machine.address, "--port", f"{PORT}", "--protocol", "tls"]
        self.scheduler = self._dask(self.machine, "scheduler", *host)
        for each in self.others:
            names = ["--name", each.name, "--nthreads", "1"]
            self.nodes[each] = self._dask(each, "worker", self.settings.scheduler, *names)

    def _dask(self, machine: Machine, *words: str) -> Program:
        options = ("--tls-ca-file", "--tls-cert", "--tls-key")
        files = [f"{self.folder / name}" for name in FILES]
        tls = [word for pair in zip(options, files, strict=True) for word in pair]
        return self._program(machine, sys.executable, "-m", "dask", *words, *tls, "--no-dashboard")

    def end_nodes(self) -> None:
        for each in self.others:
            wait_none(each, "creamas", SECONDS)
        for each in (self.machine, *self.others):  # dask takes ten seconds to end in order
            each.kill()
