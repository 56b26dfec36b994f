"""What a simulation orders from its supervisor for its slaves."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from creamas_sc.core.randomness import check_seed, draw_seed
from creamas_sc.errors import BadValue, CreamasError
from creamas_sc.rpc.addresses import base_url
from creamas_sc.rpc.auth import Membership
from creamas_sc.runtime.class_loading import portable_name
from creamas_sc.runtime.code_versions import CodeVersions
from creamas_sc.runtime.paths import simulation_folder
from creamas_sc.runtime.validation import check_mappings, check_places
from creamas_sc.supervisor_client.launcher import THREADS
from creamas_sc.supervisor_client.messages import MAX_SLAVES, ActorOrder
from creamas_sc.supervisor_client.spec import SLAVE_ENTRY, SlaveSpec, actor_order

log = logging.getLogger(__name__)


class SlaveOrders:
    """Makes the orders, for each slave with the next index.

    Args:
        member, seed, seed_drawn: As of `SlavePool`.

    Attributes:
        seed: Of the slaves, None for fresh entropy.
        seed_drawn: Whether it was drawn.
    """

    def __init__(
        self, member: Membership | None, seed: int | None, seed_drawn: bool = False
    ) -> None:
        self._member = None if member is None else (member.simulation, member.key, "slave")
        self.seed = seed
        self.seed_drawn = seed_drawn
        self._made = 0

    @cached_property
    def versions(self) -> CodeVersions | None:
        """The user's code that all of them load; None for environments outside a simulation."""
        return None if self._member is None else CodeVersions(simulation_folder(self._member[0]))

    def set_seed(self, seed: int | None) -> None:
        """Change the seed of slaves that will be started; None draws one."""
        if self._made:
            raise CreamasError("the slaves have their seed: set seed before spawn_slaves")
        self.seed_drawn = check_seed(seed) is None
        self.seed = draw_seed() if seed is None else seed

    def make(
        self,
        running: int,
        addrs: Sequence[tuple[str, int]],
        env_cls: type | str,
        mgr_cls: type | str,
        kwargs: Sequence[Mapping[str, Any]] | None,
        args: tuple[Any, ...] = (),
        restarts: bool = False,
        places: Sequence[str] = (),
    ) -> list[ActorOrder]:
        """What to order for slaves at ``addrs``; errors as `spawn_slaves`.

        Args:
            running: How many run here already, with which those here share the cores.
            restarts: Whether those that are lost may be restarted.
            places: Where each is to run, as `check_places_to_run` returns it; here by default.
        """
        addrs = check_places(addrs)
        each = [{} for _ in addrs] if kwargs is None else check_mappings(kwargs)
        if len(each) != len(addrs):
            raise ValueError(
                f"slave_kwargs has {len(each)} items for {len(addrs)} slave_addrs: give one each"
            )
        if running + len(addrs) > MAX_SLAVES:
            raise BadValue(f"cannot start {len(addrs)} slaves: a simulation can have {MAX_SLAVES}")
        orders = []
        places = places or [""] * len(addrs)
        threads = _share_of_cores(running + places.count(""))
        for index, (addr, env_kwargs) in enumerate(zip(addrs, each, strict=True), self._made):
            spec = SlaveSpec(
                addr=addr,
                env_cls=portable_name(env_cls),
                mgr_cls=portable_name(mgr_cls),
                args=args,
                kwargs=env_kwargs,
                member=self._member,
                set_seed=True if self.seed is None else self.seed,
                seed_drawn=self.seed_drawn,
                index=index,
                others_return=restarts,
            )
            slot = f"slave-{index}"
            name = f"{slot} {base_url(*addr)}" if addr[1] else slot  # port 0 is any free one
            order = actor_order(slot, name, SLAVE_ENTRY, spec.encode(self.versions))
            order["node"] = places[index - self._made]
            order["environ"].setdefault(THREADS, threads)
            orders.append(order)
        self._made += len(addrs)
        return orders


def _share_of_cores(slaves: int) -> str:
    """How many threads each of ``slaves`` may compute with, if the user has not set that."""
    cores = len(os.sched_getaffinity(0))
    share = max(1, cores // max(1, slaves))
    if slaves and THREADS not in os.environ:
        log.info("each of %d slaves gets %s=%d, of %d cores", slaves, THREADS, share, cores)
    return str(share)
