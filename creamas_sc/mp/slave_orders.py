"""What a simulation orders from its supervisor for its slaves."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from creamas_sc.rpc.addresses import base_url
from creamas_sc.runtime.code_versions import CodeVersions
from creamas_sc.supervisor_client.messages import ActorOrder
from creamas_sc.supervisor_client.spec import SLAVE_ENTRY, SlaveSpec, actor_order

log = logging.getLogger(__name__)

# How many threads OpenMP computes with, and what asks it or this variable: OpenBLAS, MKL, PyTorch.
THREADS = "OMP_NUM_THREADS"


def slave_orders(
    specs: Sequence[SlaveSpec], versions: CodeVersions | None, slaves: int
) -> list[ActorOrder]:
    """The orders for slaves that share the cores with the others, ``slaves`` in all.

    Raises:
        EncodeError, LoadError: As `SlaveSpec.encode`.
    """
    orders = []
    threads = _share_of_cores(slaves)
    for spec in specs:
        slot = f"slave-{spec.index}"
        name = f"{slot} {base_url(*spec.addr)}"
        order = actor_order(slot, name, SLAVE_ENTRY, spec.encode(versions))
        order["environ"].setdefault(THREADS, threads)
        orders.append(order)
    return orders


def _share_of_cores(slaves: int) -> str:
    """How many threads each of ``slaves`` may compute with, if the user has not set that."""
    cores = len(os.sched_getaffinity(0))
    share = max(1, cores // max(1, slaves))
    if THREADS not in os.environ:
        log.info("each of %d slaves gets %s=%d, of %d cores", slaves, THREADS, share, cores)
    return str(share)
