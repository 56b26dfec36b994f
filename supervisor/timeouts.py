"""All timeouts of the supervisor, in seconds, and its limits. Imports nothing.

Each wait of this package is bounded by one of these or by a caller's deadline. When all has to end,
each party acts only if the one before it did not: the actor that is asked to stop, the stages of
the supervisor, the zygote, the keeper.
"""

# ---- stopping an actor (see `supervisor.actors.escalation`)

GRACE_SECONDS = 1.0  # an entry that is asked to return; a caller's timeout replaces it
CANCEL_SECONDS = 0.3  # tractor's cancellation
TERM_SECONDS = 0.2  # SIGTERM
KILL_SECONDS = 1.0  # SIGKILL; past it the process is given up as unkillable
STOP_SECONDS = GRACE_SECONDS + CANCEL_SECONDS + TERM_SECONDS  # all stages but the last

# ---- starting actors

START_SECONDS = 30.0  # until all are ready, if the caller names no deadline
FORK_SECONDS = 5.0  # the zygote's answer; it is slow only if it is stopped
WAKE_SECONDS = 0.2  # past it, and again and again, a stopped zygote is woken
MAX_STARTING = 16  # processes of one start between their fork and their handshake

REAP_SECONDS = 5.0  # between two looks of an actor at what it has adopted

# ---- learning of an actor's end

STATUS_SECONDS = 0.025  # from its pidfd to the zygote's report; a stopped zygote has none
REAPED_SECONDS = 0.5  # the same if it was reaped; past it the status stays unknown
DRAIN_SECONDS = 0.1  # reading what a dead actor has sent last
TURN_SECONDS = 0.002  # a turn for the task that takes what was read

# ---- the end of a tree (see `supervisor.tree.zygote`)

ZYGOTE_WAIT_SECONDS = STOP_SECONDS + 0.1  # the script is gone: the supervisor stops all actors
KEEPER_WAIT_SECONDS = STOP_SECONDS + 0.2  # the script is gone: the zygote ends all
SWEEP_WAIT_SECONDS = 0.2  # supervisor or keeper is gone: the zygote ends all, unless it is stopped
SWEEP_SECONDS = 5.0  # killing all; a process in uninterruptible sleep may be left
ORPHANS_SECONDS = 1.0  # killing what trees have left that died long ago

# ---- nodes

LEASE_SECONDS = 10.0  # a node that was not heard for so long is lost, and ends its processes
RENEW_SECONDS = 1.0  # between two times that a node is heard
LEASE_MARGIN_SECONDS = 1.0  # beyond the lease: what a lost node ran may run elsewhere
JOIN_SECONDS = 5.0  # connecting to a supervisor, handshakes, being taken
NODE_ANSWER_SECONDS = 1.0  # beyond all stages of a stop: its answer
NODE_END_SECONDS = 0.5  # a node's tree, after its actors; past it the end of its connection ends it

# ---- a daemon's simulations and clients

HOST_MARGIN_SECONDS = 3.0  # beyond a host's grace: it stops its slaves
DESCRIBE_SECONDS = 0.5  # a host's answer, for `ls`
EXIT_KNOWN_SECONDS = 0.5  # a host's end, for `host_status`
HAND_OVER_SECONDS = 5.0  # a host takes a client; past it the client is refused
HANDSHAKE_SECONDS = 5.0  # a client's proof
FIRST_REQUEST_SECONDS = 5.0  # its first request after that
REFUSAL_SECONDS = 0.2  # sending a client why it is refused

# ---- a daemon's own start and end

LOCK_SECONDS = 3.0  # until a daemon that is ending has released its lock
LOCK_PAUSE_SECONDS = 0.02  # between two tries: a lock has no wait with a bound
LISTEN_SECONDS = 20.0  # until the daemon's supervisor listens
CLOSE_SECONDS = GRACE_SECONDS + HOST_MARGIN_SECONDS + 2 * STOP_SECONDS  # closing all simulations
