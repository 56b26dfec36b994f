"""Imports tractor, checks that it is the one this adapter was written for, and silences it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from creamas_sc.runtime.installation import CARRIED, how_to_install
from supervisor.actors.tractor_adapter import shims

WRITTEN_FOR = "0.1.0a5"

# The highest level that tractor knows, so that nothing is logged: the supervisor logs an actor's
# end, once.
QUIET = "PDB"

# Each private name in use, and why.
PRIVATE_NAMES = {
    "tractor._spawn:new_proc": "replaced: the zygote forks; start_actor looks it up",
    "tractor._actor:Actor": "made in the forked child as in the parent",
    "tractor._actor:Actor._stream_handler": "run on our end of the socketpair: no listener",
    "tractor._actor:Actor._serve_forever": "replaced: no port is opened",
    "tractor._actor:Actor.accept_addr": "replaced: there is no address",
    "tractor._actor:Actor._do_handshake": "part of what _stream_handler does",
    "tractor._actor:Actor._service_n": "the nursery that serves our end",
    "tractor._actor:get_arbiter": "replaced: there is no registry",
    "tractor._mp_fixup_main:_mp_figure_out_main": "replaced: a child never runs our __main__",
    "tractor._root:_connect_chan": "replaced: no other root is looked for",
    "tractor._ipc:Channel.connect": "replaced: a descriptor in place of an address",
    "tractor._ipc:Channel.set_msg_transport": "used by our connect",
    "tractor._entry:_trio_main": "the child's run",
    "tractor._portal:Portal": "what start_actor answers",
    "tractor._portal:Portal.cancel_actor": "the second step of a stop",
    "tractor._streaming:Context._cancel_called": "tells a context that its end is expected",
    "tractor._state:current_actor": "the root, whose tables new_proc fills",
    **{f"tractor.{m}:is_multi_cancelled": "replaced: see shims" for m in shims.PATCHED},
}

# The same for attributes that their class's ``__init__`` sets.
PRIVATE_ATTRIBUTES = {
    "tractor._actor:Actor": (
        "_peers",
        "_peer_connected",
        "_contexts",
        "_spawn_method",
        "_arb_addr",
    ),
    "tractor._supervise:ActorNursery": ("_children", "_join_procs"),
    "tractor._ipc:Channel": ("_destaddr", "msgstream"),
}


class AdapterError(RuntimeError):
    """There is no tractor here, or not one that this adapter can use."""


def check_names(names: Iterable[str], attributes: Mapping[str, Iterable[str]]) -> None:
    """Make sure that each ``module:name`` exists, and each attribute of the classes named.

    Raises:
        AdapterError: One does not; the message names it and the tractor that has it.
    """
    for name in names:
        _find(name)
    for owner, wanted in attributes.items():
        cls: Any = _find(owner)
        for attribute in wanted:
            if attribute not in cls.__init__.__code__.co_names:
                raise _missing(f"{owner}.{attribute}")


def _find(name: str) -> object:
    module, _, path = name.partition(":")
    try:
        thing: object = importlib.import_module(module)
        for attribute in path.split("."):
            thing = getattr(thing, attribute)
    except (ImportError, AttributeError) as error:
        raise _missing(name) from error
    return thing


def _missing(name: str) -> AdapterError:
    return AdapterError(f"this tractor has no {name}: the supervisor needs tractor {WRITTEN_FOR}")


def import_tractor() -> ModuleType:
    """Import the tractor that this installation carries, whatever is on the path.

    Raises:
        AdapterError: It carries none; the message says what to do.
    """
    carried = importlib.util.find_spec(CARRIED)
    spec = carried and PathFinder.find_spec("tractor", carried.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise AdapterError(f"this installation lacks tractor: {how_to_install()}")
    module = sys.modules["tractor"] = importlib.util.module_from_spec(spec)
    with shims.stand_ins():
        spec.loader.exec_module(module)
    shims.patch(module)
    logging.getLogger("tractor").setLevel(QUIET)
    return module


tractor: Any = import_tractor()
check_names(PRIVATE_NAMES, PRIVATE_ATTRIBUTES)
