"""A page that shows a society: in a browser while it runs, and from its record later.

``creamas-supervisor page NAME`` serves it in a process of its own, which to the daemon is a client
like any other: its end costs the simulation nothing.
"""
