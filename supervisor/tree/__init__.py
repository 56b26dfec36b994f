"""The tree of processes: how it starts, and how all of it ends when any part of it dies.

    keeper         its init process, the first to start and the last to die
    zygote         forks the supervisor and the actors, reaps them; here is the theory of it all
    zygote_client  the supervisor's side of the zygote: `Process`
    child_setup    the first and last acts of a forked process
    adoption       what an actor has adopted
    orphans        what a dead tree has left, found by its record
    linux          death signals, adoption of orphans, pidfds, /proc

keeper, zygote and orphans are plain programs on the standard library; trio runs in no process here
but the supervisor.
"""
