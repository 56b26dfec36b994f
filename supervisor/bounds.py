"""Every number of seconds that the supervisor waits, in one place. Imports nothing."""

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

# A pidfd tells of a death before the zygote has told how it came; then it stays "unknown".
STATUS_SECONDS = 0.025
# What a dead actor sent last is still read.
LAST_WORDS_SECONDS = 0.02
TURN_SECONDS = 0.002

# The script is gone: the supervisor's own ladder, then the zygote's patience, then the keeper's.
ZYGOTE_PATIENCE_SECONDS = LADDER_SECONDS + 0.1
KEEPER_PATIENCE_SECONDS = LADDER_SECONDS + 0.2
# The supervisor is gone, or the keeper: the zygote sweeps in milliseconds, unless it is stopped.
SWEEP_PATIENCE_SECONDS = 0.2
# A sweep ends when nothing is left, or here: a process in uninterruptible sleep is the kernel's.
SWEEP_SECONDS = 5.0
