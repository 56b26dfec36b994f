"""What the supervisor waits, in seconds, and how many it starts. Imports nothing."""

# The ladder of a stop (design: graceful request, bounded wait, hard kill).
GRACE_SECONDS = 1.0  # an actor asked to stop; a caller's timeout replaces it
CANCEL_SECONDS = 0.3  # tractor's cancellation
TERM_SECONDS = 0.2  # SIGTERM
KILL_SECONDS = 1.0  # SIGKILL: the kernel's own work; past it the process is given up as unkillable
LADDER_SECONDS = GRACE_SECONDS + CANCEL_SECONDS + TERM_SECONDS

# An actor's start where the caller names no deadline.
START_SECONDS = 30.0
# The zygote's answer to a request to fork; it is slow only where it is stopped.
FORK_SECONDS = 5.0

# Slaves of one simulation; `creamas_sc.mp.slave_pool` has the same limit and refuses sooner.
MAX_SLAVES = 512
# Of one start: processes on their way from the zygote to their first word.
LAUNCHES = 16

# A pidfd tells of a death before the zygote has told how it came; a stopped zygote does not, and
# one that has reaped many tells of one after the other. Past both the end stays "unknown".
STATUS_SECONDS = 0.025
REAPED_SECONDS = 0.5
# What a dead actor sent last is still read.
LAST_WORDS_SECONDS = 0.1
TURN_SECONDS = 0.002

# The script is gone: the supervisor's own ladder, then the zygote's patience, then the keeper's.
ZYGOTE_PATIENCE_SECONDS = LADDER_SECONDS + 0.1
KEEPER_PATIENCE_SECONDS = LADDER_SECONDS + 0.2
# The supervisor is gone, or the keeper: the zygote sweeps in milliseconds, unless it is stopped.
SWEEP_PATIENCE_SECONDS = 0.2
# A sweep ends when nothing is left, or here: a process in uninterruptible sleep is the kernel's.
SWEEP_SECONDS = 5.0
# The same for what trees that died long ago have left; see `supervisor.tree.orphans`.
LEFTOVERS_SECONDS = 1.0

# A daemon's host is given this much beyond the grace: its slaves have a ladder of their own.
HOST_MARGIN_SECONDS = 3.0
# What `ls` waits for a host to tell of itself, and `fate` for a host's end to be known.
DESCRIBE_SECONDS = 0.5
FATE_SECONDS = 0.5
# A host that is alive and does not answer for this long gets no more clients.
HAND_OVER_SECONDS = 5.0
# A client proves itself, and then sends a first request.
HANDSHAKE_SECONDS = 5.0
FIRST_REQUEST_SECONDS = 5.0
# Telling a client why it is refused.
DISMISS_SECONDS = 0.2
# Out of descriptors: the kernel keeps clients waiting until some are free.
ACCEPT_PAUSE_SECONDS = 0.1

# Of a daemon's own start and end, seen by the process that runs it.
LOCK_SECONDS = 3.0
LOCK_PAUSE_SECONDS = 0.02
LISTEN_SECONDS = 20.0
