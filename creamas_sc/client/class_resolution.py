"""Which classes another process can be told to use, and by which names."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from creamas_sc.errors import LoadError
from creamas_sc.processes.spec import named_makers
from creamas_sc.runtime.class_loading import MAIN, MainScript, portable_name
from creamas_sc.runtime.validation import check_mappings, check_places
from creamas_sc.simulation_api import Operation

__all__ = ["ClassName", "RemoteClasses", "our_script", "version"]

# Where operations take classes.
_CLASSES: dict[str, tuple[str, ...]] = {
    "get_agents": ("agent_cls",),
    "spawn": ("agent_cls",),
    "spawn_n": ("agent_cls",),
    "spawn_slaves": ("slave_env_cls", "slave_mgr_cls"),
}
_REMEDY = "move it to a module, say agents.py, and import it from there"


def version(told: Any) -> tuple[int, int]:
    """Major and minor of a Python, from the numbers or the text of its version."""
    numbers = told.split(".") if isinstance(told, str) else told
    return int(numbers[0]), int(numbers[1])


def our_script() -> str | None:
    """The file of this process's script, None in a notebook and the like."""
    script = MainScript.of_this_process()
    return None if script is None else script.file


@dataclass(frozen=True)
class ClassName:
    """A class that this process may lack: it arrives as the class."""

    name: str


@dataclass(frozen=True)
class RemoteClasses:
    """What the processes at the other end can load.

    Attributes:
        daemon: Its name.
        python: Major and minor of the Python that they run.
        simulation: Name of the simulation; empty before there is one.
        script: The file of the script that created it.
    """

    daemon: str
    python: tuple[int, int]
    simulation: str = ""
    script: str | None = None

    def name(self, cls: Any) -> str:
        """The name by which a class can be loaded there.

        Raises:
            LoadError: It cannot; the message says what to do.
        """
        name = portable_name(cls)
        module, _, told = name.partition(":")
        if module == MAIN:
            self._check_script(told)
        return name

    def _check_script(self, cls: str) -> None:
        ours = sys.version_info[:2]
        if ours != self.python:
            raise LoadError(
                f"{cls} is defined in the script, which runs Python {_dotted(ours)}, and the "
                f"daemon {self.daemon!r} runs Python {_dotted(self.python)}: {_REMEDY}"
            )
        if self.simulation and not _same_file(our_script(), self.script):
            origin = self.script or "a script that has no file"
            raise LoadError(
                f"{cls} is defined in this script, and the simulation {self.simulation!r} was "
                f"created by {origin}, where its processes look: {_REMEDY}"
            )

    def kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """An environment's keyword arguments, its ``extra_serializers`` by name."""
        for make in kwargs.get("extra_serializers") or ():
            self.name(make)
        return named_makers(kwargs)

    def arguments(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """An operation's arguments, with classes by name where they will be looked up by name."""
        parameters = _CLASSES.get(operation.name)
        if parameters is None:
            return args, kwargs
        bound = operation.signature.bind(*args, **kwargs)
        given = bound.arguments
        for parameter in parameters:
            cls = given.get(parameter)
            if cls is None:
                continue
            name = self.name(cls)
            # `get_agents` compares the class itself.
            given[parameter] = ClassName(name) if operation.name == "get_agents" else name
        if given.get("slave_addrs") is not None:
            given["slave_addrs"] = check_places(given["slave_addrs"])
        if given.get("slave_kwargs") is not None:
            given["slave_kwargs"] = [self.kwargs(k) for k in check_mappings(given["slave_kwargs"])]
        return bound.args, bound.kwargs


def _dotted(python: tuple[int, ...]) -> str:
    return ".".join(map(str, python))


def _same_file(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return False
    return os.path.realpath(one) == os.path.realpath(other)
