"""Several machines: processes of other machines' trees, which are joined to one supervisor.

channel  TLS between a node and the supervisor, and the proof that both hold the key
"""
