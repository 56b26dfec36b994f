"""The adapter to tractor: its only importer. tractor's errors stop here.

tractor is used for what it is good at, a tree of actors with a context each; not for starting
processes, finding peers or listening, which would open ports to everybody on this machine. So

    compat   imports the tractor that this installation carries, silenced, and with stand-ins for
             what it expects of trio and of packages of 2022
    patches  replaces what opens ports, looks for other trees, and starts processes
    actors   the parent's side: a root, a nursery per simulation, a context per actor
    entry    the child's side: the actor that the zygote runs in a fork

Processes come from the zygote; a child and its parent talk over one inherited socketpair. Over it
goes one long context per actor, as a call of tractor that is made again and again leaks memory.

It was written for tractor 0.1.0a5; a test lists the private names in use. On tractor's main
(0.1.0a6dev0 of August 2026, for Python 3.13 and later) they are found here:

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

Of the stand-ins, that for its debugger (pdbp there) would remain; its log imports colorlog only
when it is used.
"""

from supervisor.actors.tractor_adapter.actors import Actor, Simulation, open_root, open_simulation
from supervisor.actors.tractor_adapter.entry import run_actor
from supervisor.actors.tractor_adapter.patches import DiedEarly

__all__ = ["Actor", "DiedEarly", "Simulation", "open_root", "open_simulation", "run_actor"]
