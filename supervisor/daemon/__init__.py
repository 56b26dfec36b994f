"""A daemon: a supervisor that outlives its clients, and the simulations in it.

process             the process that owns a daemon's tree: start, signals, exit code
lock                one daemon per name
place               its socket and lock, kept in place
records             where daemons run, for commands that do not find the socket
service             the daemon inside the supervisor: status, stop
listener            lets clients in and hands them over
registry            simulations by name: create, ls, inspect, close, kill
managed_simulation  one simulation: its host process and the host's slaves
"""
