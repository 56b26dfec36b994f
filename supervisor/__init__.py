"""The supervisor: starts, watches and ends processes; it knows nothing of environments.

    keeper        the last to die: standard library only, adopts orphans and ends them
    `-- zygote    one thread, all modules imported once; forks the rest
        |-- supervisor    the root of the actors; runs no user code
        |-- actor
        `-- actor

    tree/       these processes        actors/   starting and stopping actors
    root        the supervisor's main  daemon/   a supervisor with simulations and clients
    rpc_server  methods by name        cli/      the command creamas-supervisor
    timeouts    all of them
    error_texts bounded, as they are sent and kept

``python -P <folder of this package>/__main__.py CONTROL_FD SCRIPT_PID`` starts the tree; see
`supervisor.tree.keeper`.
"""
