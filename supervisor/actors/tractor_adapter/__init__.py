"""The seam: the only importer of tractor. Its processes come from the zygote, its bytes go over
one inherited socketpair a child, and its errors stop here.

It is written for tractor 0.1.0a5. On tractor's main (0.1.0a6dev0 of August 2026, for Python 3.13
and later), the private names that `runtime` lists are to be found here:

    _spawn.new_proc              spawn._spawn; takes bind_addrs, a list, and proc_kwargs
    _actor.Actor                 runtime._runtime, with _service_n as _service_tn
    Actor._peers, _peer_connected, _serve_forever
                                 ipc._server.Server, with the last as listen_on
    Actor._stream_handler        ipc._server.handle_stream_from_peer
    Actor._do_handshake          ipc._chan.Channel
    _actor.get_arbiter           discovery._api.get_registry; _arb_addr is reg_addrs
    _root._connect_chan          discovery._api._probe_registry_addrs
    _ipc.Channel                 ipc._chan, with connect as from_addr, msgstream as _transport;
                                 set_msg_transport is Channel(transport=...)
    _entry, _mp_fixup_main       in spawn
    _portal, _state, _supervise  in runtime
    _streaming.Context           _context

Of `shims`, the stand-in for its debugger (pdbp there) would remain; its log imports colorlog only
where it is used.
"""

from supervisor.actors.tractor_adapter.actors import (
    Actor,
    Died,
    Forker,
    Outcome,
    Simulation,
    Tree,
    first_of,
    open_tree,
)
from supervisor.actors.tractor_adapter.entry import run_actor

__all__ = [
    "Actor",
    "Died",
    "Forker",
    "Outcome",
    "Simulation",
    "Tree",
    "first_of",
    "open_tree",
    "run_actor",
]
