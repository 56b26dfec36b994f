"""The supervisor as a script or a simulation's host sees it: started here, and called.

spec        what a slave or a host gets when it starts
messages    types of what a supervisor is sent and sends
launcher    starts the tree of processes; `prestart` does so while the script still imports
connection  the connection to a supervisor
"""
