"""Bounds, in seconds, that several modules of this package share or that users may want to know.

Those of one module only are defined where they are used; those of the supervisor are in
`supervisor.timeouts`.
"""

from __future__ import annotations

# How long slaves may take in `close` to save and close their agents.
GRACE_SECONDS = 1.0
# How long connecting to another environment may take, until `set_base_timeout` is called.
CONNECT_SECONDS = 5.0
# How long each side of a new connection may take to prove who it is.
HANDSHAKE_SECONDS = 5.0
# How long the caller of a cancelled call waits for the callee to confirm.
ACKNOWLEDGE_SECONDS = 0.4
# How long a client may take to connect to a daemon, the handshake included.
OPEN_SECONDS = 5.0
# A client's pause before its next attempt when the daemon's queue of connections is full.
BUSY_RETRY_SECONDS = 0.02
# How often a loop of calls or acts that never suspend yields to the scheduler.
YIELD_SECONDS = 0.01
# How long it may take until a socket that was removed is put back.
LOOK_SECONDS = 5.0
