"""The user's code on a node: what its slaves load, as their simulation's master sent it.

It is where each process looks for it (see `creamas_sc.runtime.code_versions`): in the simulation's
folder on this machine, which is held here until the simulation is forgotten.
"""

from __future__ import annotations

import re

from creamas_sc.errors import StartError
from creamas_sc.foreign import shown
from creamas_sc.rpc.socket_folder import SocketFolder
from creamas_sc.runtime.code_versions import CodeVersions
from creamas_sc.runtime.paths import simulation_folder
from creamas_sc.supervisor_client.messages import Code

_SIMULATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class HeldCode:
    """The folders of simulations that are held, by their ids."""

    def __init__(self) -> None:
        self._held: dict[str, SocketFolder] = {}

    def take(self, code: Code) -> None:
        """Have the files where slaves of their simulation look for them.

        Raises:
            StartError: They cannot be written.
            CreamasError: The user's runtime folder is not usable.
        """
        simulation = code["simulation"]
        if not _SIMULATION.fullmatch(simulation):  # it is the name of a folder
            raise StartError(f"{shown(simulation)} is not the id of a simulation")
        if simulation not in self._held:
            self._held[simulation] = SocketFolder(simulation)
        folder = simulation_folder(simulation)
        try:
            CodeVersions(folder).take(code["files"])
        except OSError as error:
            why = f"its code cannot be written into {folder}: {error.strerror}"
            raise StartError(f"no slaves here: {why}") from error

    def forget(self, simulation: str) -> None:
        """Hold a simulation's folder no more: with its last slave it goes."""
        held = self._held.pop(simulation, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """Forget all."""
        for simulation in list(self._held):
            self.forget(simulation)
