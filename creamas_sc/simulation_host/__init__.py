"""A daemon's simulation: the process that runs its multi-environment and serves its clients."""
