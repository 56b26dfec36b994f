"""Nodes: other machines on which a supervisor has actors run, each in a tree of that machine.

channel       TLS between a node and the supervisor, and the proof that both hold the key
listener      lets nodes in
registry      those that have joined, by name
joined_node   one of them, from its joining to its end
received      what they send, checked
remote_actor  an actor on one, as its pool sees it
placement     where the actors of one simulation run: here, or on nodes

On the other machine:

process       a node's process: joins, again if need be, and is asked to end
stay          its time with one supervisor, and the tree that it has meanwhile
about         what it says of itself
localized     orders, made to fit its machine
held_code     the user's code there
"""
