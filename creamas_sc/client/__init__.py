"""Clients of the `creamas-supervisor` daemon, whose simulations outlive the scripts that use them.

Start the daemon once, with ``creamas-supervisor start``. Then, in any script or notebook::

    from creamas_sc.client import connect_sync

    with connect_sync() as client:
        client.create("novelty", slave_addrs=[("localhost", 0)] * 2)
        with client.attach("novelty") as simulation:
            painter, addr = simulation.spawn("painters:Painter")  # painters.py is beside the script
            print(simulation.trigger_all())
            print(painter.sketches())                             # an exposed method of the agent
            simulation.start_steps(1000)                          # goes on by itself

    with connect_sync() as client:                                # later, from anywhere
        with client.attach("novelty") as simulation:
            print(simulation.wait_steps()["step"], simulation.get_artifacts(limit=10))
        print(client.close("novelty").graceful)

Under asyncio or trio, where several tasks may make calls at once::

    async with connect() as client, client.attach("novelty") as simulation:
        painter, addr = await simulation.spawn("painters:Painter")
        print(await painter.sketches())

A client has ``create``, ``attach``, ``ls``, ``status``, ``inspect``, ``nodes``, ``close``,
``kill`` and ``stop``, as the command line has; see `creamas_sc.client.daemon_api.DaemonAPI`. What
it attaches to has the operations of `MultiEnvironment`, with methods in place of properties
(``get_addrs()``, ``get_age()``, ``set_age(n)``), and ``start_steps(n)``,
``start_steps_within(seconds, n)``, ``pause()``, ``resume()``, ``progress()``, ``wait_steps()`` and
``events()``; see `creamas_sc.simulation_api.SimulationAPI`. In a notebook leave out ``with``, and
call ``disconnect()`` at the end.

- Calls of different clients are independent of each other, except that steps wait for each other.
- A client that goes away, by intent or by a crash, cancels its own calls and nothing else: the
  simulation and the steps that it takes by itself go on.
- What stopped those steps is in ``progress()`` and, with the agent's traceback, in the daemon's
  logs (``creamas-supervisor logs NAME``); ``resume()`` continues them.
- The client needs only anyio and msgpack, on any Python from 3.11 on, as the agents' modules are
  imported by the daemon's processes. Classes are given by name, ``"painters:Painter"``, or as
  classes where this process can import them. The simulation's processes look for modules in the
  folder of the script that created it, along its PYTHONPATH, in its working directory and in the
  daemon's own Python. Classes of the creating script itself work if it runs on the daemon's Python.
- Only the user who started the daemon can connect: the socket is in a folder with mode 0700,
  ``$XDG_RUNTIME_DIR/creamas``, and the daemon checks which user's process connects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.runtime.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from creamas_sc.client.async_client import Client, Simulation, connect
    from creamas_sc.client.sync_client import SyncClient, SyncSimulation, connect_sync

__all__ = [
    "Client",
    "RestartPolicy",
    "Simulation",
    "SyncClient",
    "SyncSimulation",
    "connect",
    "connect_sync",
]

# Imported at first use: the blocking client needs no event loop.
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "async_client": ("Client", "Simulation", "connect"),
        "sync_client": ("SyncClient", "SyncSimulation", "connect_sync"),
    },
)
