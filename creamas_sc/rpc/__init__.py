"""Remote calls: the wire protocol driven over sockets, and agents at its ends.

network          the calls of one environment's agents, in both directions
endpoint         an environment's listeners, and one connection to each peer
routes           where environments listen that have moved
addresses        what agents' addresses are made of, and the ports in them
socket_folder    the unix sockets of a machine's environments
sealed_stream    TCP between machines, where all proves that it comes from the peer
connection       one connection, driven with anyio: reading and serving
calls            the sending half of it, and several calls at once
write_queue      what is to be written, and backpressure
socket_stream    the byte stream below it, on trio
loops            what it needs of the event loop
sync_connection  one connection, driven by the calling thread
exposed          which methods are open to others, and proxies that call them
auth             who belongs to a simulation, and its key
fd_passing       connections handed from one process to another
"""

from __future__ import annotations

from creamas_sc.runtime.lazy_import import lazy_attributes

__getattr__, __dir__ = lazy_attributes(__name__, {}, ("rounds",))
