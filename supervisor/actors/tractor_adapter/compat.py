"""Imports tractor and silences it.

It is 0.1.0a5 and no other: the build fetches it by its hash (see .build/carry_tractor.py).
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from creamas_sc.runtime.installation import CARRIED, how_to_install
from supervisor.actors.tractor_adapter import shims

# The highest level that tractor knows, so that nothing is logged: the supervisor logs an actor's
# end, once.
QUIET = "PDB"


def import_tractor() -> ModuleType:
    """Import the tractor that this installation carries, whatever is on the path.

    Raises:
        RuntimeError: It carries none; the message says what to do.
    """
    carried = importlib.util.find_spec(CARRIED)
    spec = carried and PathFinder.find_spec("tractor", carried.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"this installation lacks tractor: {how_to_install()}")
    module = sys.modules["tractor"] = importlib.util.module_from_spec(spec)
    with shims.stand_ins():
        spec.loader.exec_module(module)
    shims.patch(module)
    logging.getLogger("tractor").setLevel(QUIET)
    return module


tractor: Any = import_tractor()
