"""Orders of another machine, made to fit this one.

An order has the environment, working folder and import path of the simulation's creator. Here its
process gets

* the creator's environment, but this machine's values, or none, for what says where things are
  here, and what a job or its user has here: `_OWN`. So a slave finds this machine's folders and
  devices, and the creator's settings.
* the creator's working folder, if there is one of that path here, else the node's.
* the creator's import path, followed by the node's as always.

Folders in which other users of this machine may put files are left out: on the creator's machine a
folder of the same path may be safe.

Slaves on nodes do not write into the log of their simulation, which is on another machine, or in a
file system in which lines of several machines would overwrite each other: what they print is the
node's standard output and error.

PYTHONHASHSEED takes effect as the node starts, so an order that wants another one is refused: the
simulation's sets would have one order here and another there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from creamas_sc.errors import StartError
from creamas_sc.runtime.log_setup import FILE_VARIABLE
from creamas_sc.runtime.paths import exposed
from creamas_sc.supervisor_client.launcher import HASH_SEED
from creamas_sc.supervisor_client.messages import ActorOrder, os_bytes, os_text

log = logging.getLogger(__name__)

# Names, and what names begin with, of what describes the machine, its user or the job.
_OWN: Final = frozenset({
    "HOME", "HOST", "HOSTNAME", "LOGNAME", "MAIL", "OLDPWD", "PATH", "PWD", "SHELL", "TEMP",
    "TERM", "TMP", "TMPDIR", "USER", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS", "VIRTUAL_ENV", "JOB_ID", "NSLOTS", "ZE_AFFINITY_MASK",
    FILE_VARIABLE,
})  # fmt: skip
_OWN_PREFIXES: Final = (
    "XDG_", "LD_", "SSH_", "CONDA_", "KUBERNETES_",  # where things are
    "SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "PBS_", "LSB_", "LSF_", "LS_SUBCWD", "SGE_", "OAR_",
    "_CONDOR_", "FLUX_", "COBALT_", "PMI_", "PMIX_", "PMI2_", "OMPI_", "MPI_", "I_MPI_",  # a job's
    "CUDA_", "NVIDIA_", "GPU_", "ROCR_", "HIP_", "HSA_",  # its devices
)  # fmt: skip


def is_own(name: str) -> bool:
    """Whether a node's processes have the node's value of an environment variable."""
    return name in _OWN or name.startswith(_OWN_PREFIXES)


def localized(order: ActorOrder) -> ActorOrder:
    """The order, as this machine can carry it out.

    Raises:
        StartError: It wants another PYTHONHASHSEED than this node has.
    """
    name, default = HASH_SEED
    wanted, here = order["environ"].get(name, default), os.environ.get(name, default)
    if wanted != here:
        raise StartError(
            f"the simulation has {name}={wanted} and this node {here}: start the node, or the "
            "cluster's workers, with the simulation's"
        )
    environ = {k: v for k, v in order["environ"].items() if not is_own(os_text(k))}
    environ |= {os_bytes(k): os_bytes(v) for k, v in os.environ.items() if is_own(k)}
    cwd = next(iter(_safe([order["cwd"]])), os_bytes(os.getcwd()))
    return {**order, "environ": environ, "cwd": cwd, "path": list(_safe(order["path"]))}


def _safe(folders: Iterable[str]) -> Iterable[str]:
    """Those folders (or archives) that are here, and where no other user may put files."""
    for each in folders:
        try:
            place = exposed(Path(os_text(each)))
        except OSError:  # it is not here
            continue
        if place is None:
            yield each
        else:
            log.warning("%s is not used: other users may write to %s", os_text(each), place)
