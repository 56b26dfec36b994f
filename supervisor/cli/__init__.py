"""The command ``creamas-supervisor``: a daemon, and the simulations in it."""
