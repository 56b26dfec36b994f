"""The systems by name, each imported when it is measured: imports are part of a start."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.adapter import Adapter

__all__ = ["FORMS", "PLAN", "make"]

FORMS = ("trio", "rounds", "sync", "attached", "attached-sync")
_FREE = ("trio", "sync", "attached", "attached-sync")
# The limits of calls; the second one if it is installed: ``--with uvloop``.
_CALLS = ("sockets", "uvloop") if find_spec("uvloop") else ("sockets",)

# Workload -> the systems that it is run on: forms of this project, then the limits.
PLAN: dict[str, tuple[str, ...]] = {
    "w1": (*_FREE, "fork"),
    "w2": ("trio", "sync", "fork"),
    "w3": (*FORMS, "fork"),
    "w4": ("trio", "sync", "fork"),
    "w5": ("trio", "sync", "sockets", "sockets-direct"),
    "w6": ("trio", "sync", "fork"),
    "w7": ("trio", "sync", "sockets", "raw", "shm"),
    "w8": ("trio", "sync", "attached", "fork"),
    "w9": ("trio", "fork"),
    "w10": ("sync", "fork"),
    "w11": ("rounds", "trio", *_CALLS),
    "w12": ("rounds", "trio", *_CALLS),
    "w13": ("rounds", "trio", "fork"),
    "w14": ("rounds", "trio", "fork"),
}


def make(name: str, slaves: int) -> Adapter:
    """The adapter of a system.

    Raises:
        ValueError: There is none of that name.
    """
    if name in FORMS:
        from tests.benchmarks.society import society

        return society(name, slaves)
    if name == "fork":
        from tests.benchmarks.limits import Fork

        return Fork(name, slaves)
    if name in ("sockets", "sockets-direct"):
        from tests.benchmarks.sockets import Sockets

        return Sockets(name, slaves)
    if name == "uvloop":
        from tests.benchmarks.uvloop_sockets import Uvloop

        return Uvloop(name, slaves)
    if name in ("raw", "shm"):
        from tests.benchmarks.sockets import Raw

        return Raw(name, slaves)
    raise ValueError(f"there is no system {name!r}")
