"""The user's code on a node: what its slaves load, as their simulation's master sent it.

It is where each process looks for it (see `creamas_sc.runtime.code_versions`): in the simulation's
folder on this machine, which is held here until the simulation is forgotten.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, closing

from creamas_sc.errors import StartError
from creamas_sc.foreign import shown
from creamas_sc.rpc.socket_folder import SocketFolder, simulation_folder
from creamas_sc.supervisor_client.messages import Code

_SIMULATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"[0-9a-f]{64}|modules")


class HeldCode:
    """The folders of simulations that are held, by their ids."""

    def __init__(self) -> None:
        self._held: dict[str, ExitStack] = {}

    def write(self, code: Code) -> None:
        """Have the files where slaves of their simulation look for them.

        Raises:
            StartError: They cannot be written, or a slave has another version already.
            CreamasError: The user's runtime folder is not usable.
        """
        simulation = code["simulation"]
        if not _SIMULATION.fullmatch(simulation):
            raise StartError(f"{shown(simulation)} is not the id of a simulation")
        if simulation not in self._held:
            self._held[simulation] = held = ExitStack()
            held.enter_context(closing(SocketFolder(simulation)))
        folder = simulation_folder(simulation)
        for name, (mtime_ns, contents) in code["files"].items():
            if not _FILE.fullmatch(name):
                raise StartError(f"{shown(name)} is not the name of a file of code")
            place, draft = folder / name, folder / f"{name}.{os.getpid()}"
            try:
                if name != "modules" and place.exists():
                    _check_same(place.read_bytes(), contents)
                draft.write_bytes(contents)
                os.utime(draft, ns=(mtime_ns, mtime_ns))
                draft.replace(place)
            except OSError as error:
                raise StartError(f"cannot write {place}: {error.strerror}") from error

    def forget(self, simulation: str) -> None:
        """Hold a simulation's folder no more: with its last slave it goes."""
        held = self._held.pop(simulation, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """Forget all."""
        for simulation in list(self._held):
            self.forget(simulation)


def _check_same(here: bytes, sent: bytes) -> None:
    """Check that slaves here, which have loaded a file before it was sent, have the same one."""
    if here != sent:
        path = os.fsdecode(here.partition(b"\0")[0])
        raise StartError(
            f"{path} is another file on this machine than on that of the simulation: make them the "
            "same, or remove this one"
        )
