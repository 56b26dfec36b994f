"""How a script gets processes: the supervisor's tree is started here and talked to.

spec               what a slave or a host gets when it starts
messages           types of what a supervisor is sent and sends
launcher           starts the tree of processes
supervisor_client  the connection to a supervisor
prestart           starts the tree while the script is still importing
"""
