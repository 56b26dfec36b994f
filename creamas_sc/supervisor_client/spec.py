"""What a process gets when it starts, as bytes: a supervisor passes a spec on unopened.

An encoded spec has four parts: which script to load, whose versions of the user's code, the fields,
and changes of fields. Script and versions come first, as decoding the fields may load classes. The
changes are made without opening the rest (`changed`): where the process is to run, and how often it
was restarted. The versions are in the folder of the simulation's id, which is another one on each
machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from creamas_sc.runtime.class_loading import load_object, portable_name
from creamas_sc.runtime.code_versions import CodeVersions, load_from
from creamas_sc.runtime.main_script import MainScript, adopt_script
from creamas_sc.runtime.paths import simulation_folder
from creamas_sc.serializers import get_serializers, to_serializers
from creamas_sc.supervisor_client.messages import ActorOrder, ProcessOrder, os_bytes
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame

SLAVE_ENTRY = "creamas_sc.mp.slave_main:main"
HOST_ENTRY = "creamas_sc.simulation_host.main:main"


def actor_order(slot: str, name: str, entry: str, spec: bytes) -> ActorOrder:
    """An order for a process that finds modules, files and settings where this one does."""
    return {"slot": slot, "name": name, "node": "", **process_order(entry, spec, sys.path)}


def process_order(entry: str, spec: bytes, path: Sequence[str]) -> ProcessOrder:
    """The same without slot and name, and with modules found along ``path``."""
    cwd = os.getcwd()
    return {
        "entry": entry,
        "spec": spec,
        "environ": {os_bytes(key): os_bytes(value) for key, value in os.environ.items()},
        "cwd": os_bytes(cwd),
        "path": [os_bytes(folder or cwd) for folder in path],
    }


class _Spec:
    """Fields that are encoded for the supervisor and decoded in the process."""

    _root: ClassVar[str]  # what errors call it
    # Fields with keyword arguments of an environment, whose ``extra_serializers`` go by name.
    _kwargs_fields: ClassVar[tuple[str, ...]]

    def encode(
        self, versions: CodeVersions | None = None, script: MainScript | None = None
    ) -> bytes:
        """Encode it for the supervisor.

        Args:
            versions: What the process loads of the user's code; the files as they are by default.
            script: What ``__main__`` is there; by default what it is here.

        Raises:
            EncodeError: An argument cannot travel.
            LoadError: A function among ``extra_serializers`` cannot be found by name.
        """
        fields = self._converted(vars(self), portable_name)
        script = script or MainScript.of_this_process()
        simulation = None if versions is None else versions.folder.name
        return pack((script and tuple(script), simulation, pack(fields, self._root), {}))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The reverse of `encode`; from here on the script is ``__main__`` of this process."""
        script, simulation, inner, changes = unpack(data)
        adopt_script(None if script is None else MainScript(*script))
        if simulation is not None:
            versions = CodeVersions(simulation_folder(simulation))
            load_from(versions, changes.get("node", ""))
        return cls(**cls._converted({**unpack(inner), **changes}, load_object))

    @classmethod
    def _converted(cls, fields: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
        converted = dict(fields)
        for name in cls._kwargs_fields:
            value = fields[name]
            if isinstance(value, Mapping):
                converted[name] = _convert_makers(value, convert)
            elif value is not None:
                converted[name] = [_convert_makers(each, convert) for each in value]
        return converted


@dataclass(frozen=True)
class SlaveSpec(_Spec):
    """What a slave needs to know to start.

    Attributes:
        addr: Host and port of its address.
        elsewhere: Host and port to listen on, if these are others.
        node: On which it runs; empty for its master's machine.
        env_cls, mgr_cls: Names of its classes.
        args, kwargs: Passed to the environment's class after ``addr``.
        member: Fields of its `Membership`; None for the user's own.
        set_seed: True for fresh entropy, an int for a repeatable run, False to leave the random
            generators alone.
        seed_drawn: ``set_seed`` was drawn: a seed that the environment's class sets goes before it.
        index: Which of its simulation's slaves it is.
        incarnation: How many times it was restarted before.
        others_return: Whether a slave that is lost may be restarted.
        generation: As of `Membership`.
    """

    addr: tuple[str, int]
    env_cls: str
    mgr_cls: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    member: tuple[str, bytes, str] | None
    set_seed: bool | int = True
    seed_drawn: bool = False
    index: int = 0
    incarnation: int = 0
    others_return: bool = False
    elsewhere: tuple[str, int] | None = None
    node: str = ""
    generation: int = 0

    _root = "slave"
    _kwargs_fields = ("kwargs",)


@dataclass(frozen=True)
class HostSpec(_Spec):
    """What a host needs to know to start: what `MultiEnvironment` and `spawn_slaves` take.

    Attributes:
        name: The simulation's.
        menv_cls: Name of `MultiEnvironment` or of a subclass.
        addr, env_cls, mgr_cls, env_kwargs, seed: For its constructor, classes by name.
        slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs: For `spawn_slaves`; without
            addresses no slaves are started.
        restart: What a slave's loss leads to: what `RestartPolicy.of` takes.
        agent_classes: Names of classes that slaves load at their start.
        calls: How agents' calls go in a step.
        record: Fields of the `Record`; None if nothing is recorded.
        resumed: Arguments of `Resumption.open`, and ``changed_code``; then the checkpoint has all
            else but the name and ``place``.
        place: Where slaves run, as of `spawn_slaves`.
        nodes: How many nodes must be there before, and for how many seconds they are waited for.
    """

    name: str
    menv_cls: str = ""
    addr: tuple[str, int] = ("", 0)
    env_cls: str = ""
    mgr_cls: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    slave_addrs: Sequence[tuple[str, int]] = ()
    slave_env_cls: str = ""
    slave_mgr_cls: str = ""
    slave_kwargs: Sequence[Mapping[str, Any]] | None = None
    restart: str | tuple[str, int, float] = "temporary"
    agent_classes: Sequence[str] = ()
    calls: str = "rounds"
    record: Mapping[str, Any] | None = None
    resumed: Mapping[str, Any] | None = None
    place: str | Sequence[str] | None = None
    nodes: tuple[int, float] | None = None

    _root = "simulation"
    _kwargs_fields = ("env_kwargs", "slave_kwargs")


def changed(spec: bytes, **changes: Any) -> bytes:
    """An encoded spec with other values of some fields; the rest is not opened."""
    script, simulation, inner, before = unpack(spec)
    return pack((script, simulation, inner, {**before, **changes}))


def changes_of(spec: bytes) -> dict[str, Any]:
    """The fields of an encoded spec that `changed` has changed, and their values."""
    changes: dict[str, Any] = unpack(spec)[3]
    return changes


def fields_of(spec: bytes) -> dict[str, Any]:
    """The fields of an encoded spec as they were at first; it may have classes of users."""
    fields: dict[str, Any] = unpack(unpack(spec)[2])
    return fields


def named_makers(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """An environment's keyword arguments, with its ``extra_serializers`` by name."""
    return _convert_makers(kwargs, portable_name)


def loaded_makers(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `named_makers`."""
    return _convert_makers(kwargs, load_object)


def _convert_makers(kwargs: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    makers = kwargs.get("extra_serializers")
    if makers is None:
        return dict(kwargs)
    return {**kwargs, "extra_serializers": [convert(make) for make in makers]}


def pack(value: Any, root: str = "value") -> bytes:
    """A value as one piece of bytes, large parts included."""
    payload = Codec(to_serializers(get_serializers())).encode(value, root=root)
    return b"".join(encode_frame(Kind.EVENT, 0, b"", payload.body, payload.parts))


def unpack(data: bytes) -> Any:
    """The reverse of `pack`."""
    (frame,) = FrameReader().receive_data(data)
    return Codec(to_serializers(get_serializers())).decode(Payload(frame.body, frame.parts))
