"""The supervisor: starts, watches and ends processes; it knows nothing of environments.

    keeper        the last to die: stdlib only, adopts what is left over and ends it
    `-- zygote    one thread, everything of ours imported once; forks the rest
        |-- supervisor    the tractor root; runs no user code
        |-- actor
        `-- actor

``python -P <folder of this package>/__main__.py CONTROL_FD SCRIPT_PID`` starts the tree; see
`supervisor.tree.keeper`.
"""
