"""Which classes the processes of a daemon can load, and under which names they are sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from creamas_sc.errors import LoadError
from creamas_sc.rpc.exposed import Caller, Proxy
from creamas_sc.runtime.class_loading import SCRIPT_MODULES, portable_name
from creamas_sc.runtime.main_script import MAIN, MainScript
from creamas_sc.runtime.validation import check_mappings, check_places
from creamas_sc.serializers import follow, get_serializers, to_serializers
from creamas_sc.simulation_api import Operation
from creamas_sc.supervisor_client.spec import named_makers
from creamas_sc.wire.codec import Codec
from creamas_sc.wire.extensions import TYPE, encode_function, encode_type
from creamas_sc.wire.packing import EncodeHandler, Encoder, ext

# Parameters of operations that are classes.
_CLASSES: dict[str, tuple[str, ...]] = {
    "get_agents": ("agent_cls",),
    "spawn": ("agent_cls",),
    "spawn_n": ("agent_cls",),
    "spawn_slaves": ("slave_env_cls", "slave_mgr_cls"),
}
_REMEDY = "move it to a module, say agents.py, and import it from there"


def version(python: Any) -> tuple[int, int]:
    """Return a Python's major and minor version, from the numbers or the text of its version."""
    numbers = python.split(".") if isinstance(python, str) else python
    return int(numbers[0]), int(numbers[1])


def script_file() -> str | None:
    """Return the file of this process's script; None in a notebook and the like."""
    script = MainScript.of_this_process()
    return None if script is None else script.file


@dataclass(frozen=True)
class ClassName:
    """A class by its name, which the receiver decodes to the class; this process may lack it."""

    name: str


@dataclass(frozen=True)
class RemoteClasses:
    """The classes that a daemon's processes can load.

    Attributes:
        daemon: The daemon's name.
        python: Major and minor version of the Python that runs them.
        simulation: Name of the simulation; empty before there is one.
        script: File of the script that created the simulation.
    """

    daemon: str
    python: tuple[int, int]
    simulation: str = ""
    script: str | None = None

    def name(self, cls: Any) -> str:
        """Return the name under which the daemon's processes can load a class.

        Raises:
            LoadError: They cannot load it; the message says what to do.
        """
        name = portable_name(cls)
        module, _, cls_name = name.partition(":")
        if module != MAIN:
            return name
        python = sys.version_info[:2]
        if python != self.python:
            mine, theirs = (".".join(map(str, each)) for each in (python, self.python))
            raise LoadError(
                f"{cls_name} is defined in the script, which runs Python {mine}, but the daemon "
                f"{self.daemon!r} runs Python {theirs}: {_REMEDY}"
            )
        here = script_file()
        same = here and self.script and os.path.realpath(here) == os.path.realpath(self.script)
        if self.simulation and not same:
            origin = self.script or "a script that has no file"
            raise LoadError(
                f"{cls_name} is defined in this script, but the simulation {self.simulation!r} "
                f"was created by {origin}, where its processes look for it: {_REMEDY}"
            )
        return name

    def kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return an environment's keyword arguments with its ``extra_serializers`` by name."""
        for make in kwargs.get("extra_serializers") or ():
            self.name(make)
        return named_makers(kwargs)

    def arguments(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return an operation's arguments, with names in place of the classes it takes."""
        parameters = _CLASSES.get(operation.name)
        if parameters is None:
            return args, kwargs
        bound = operation.signature.bind(*args, **kwargs)
        given = bound.arguments
        for parameter in parameters:
            if given.get(parameter) is not None:
                name = self.name(given[parameter])
                # `get_agents` compares classes, the other operations load them by name.
                given[parameter] = ClassName(name) if operation.name == "get_agents" else name
        if given.get("slave_addrs") is not None:
            given["slave_addrs"] = check_places(given["slave_addrs"])
        if given.get("slave_kwargs") is not None:
            given["slave_kwargs"] = [self.kwargs(k) for k in check_mappings(given["slave_kwargs"])]
        return bound.args, bound.kwargs


class ScriptCodec(Codec):
    """A codec that refuses classes of this script if the simulation's processes lack them.

    Agents arrive as proxies that call through ``caller``.

    Attributes:
        remote: What the simulation's processes can load; None until it is known.
    """

    remote: RemoteClasses | None = None

    def __init__(self, caller: Caller) -> None:
        super().__init__(to_serializers(get_serializers()), references=_Agents(caller))
        self._encode_handlers[type] = self._encode_class
        self._encode_handlers[FunctionType] = self._encode_function
        self._encode_handlers[ClassName] = lambda _, cls: ext(TYPE, cls.name.encode())
        follow(self.add)

    def _handler_of(self, cls: type) -> EncodeHandler | None:
        if issubclass(cls, type):
            return self._encode_class
        self._check(cls)
        return super()._handler_of(cls)

    def _encode_class(self, encoder: Encoder, value: type) -> Any:
        self._check(value)
        return encode_type(encoder, value)

    def _encode_function(self, encoder: Encoder, value: FunctionType) -> Any:
        self._check(value)
        return encode_function(encoder, value)

    def _check(self, cls: type | FunctionType) -> None:
        if cls.__module__ in SCRIPT_MODULES and self.remote is not None:
            self.remote.name(cls)


class _Agents:
    """Agents as values: proxies that call through the client."""

    types = (Proxy,)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def describe(self, obj: Any) -> tuple[str, str]:
        return obj.addr, obj.class_name

    def resolve(self, address: str, class_name: str) -> Proxy:
        return Proxy(self._caller, address, class_name)
