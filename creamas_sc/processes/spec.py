"""What a process is told when it is started, as bytes: a supervisor passes it on unopened."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from creamas_sc.processes.messages import ActorOrder, ProcessOrder, os_bytes
from creamas_sc.runtime.class_loading import MainScript, adopt_script, load_object, portable_name
from creamas_sc.serializers import get_serializers, to_serializers
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame

__all__ = [
    "HOST_ENTRY",
    "SLAVE_ENTRY",
    "HostSpec",
    "SlaveSpec",
    "actor_order",
    "changed",
    "named_makers",
    "pack",
    "process_order",
    "unpack",
]

SLAVE_ENTRY = "creamas_sc.mp.slave_main:main"
HOST_ENTRY = "creamas_sc.host.main:main"


def actor_order(slot: str, name: str, entry: str, spec: bytes) -> ActorOrder:
    """An order for a process that finds modules, files and settings where this one does."""
    return {"slot": slot, "name": name, **process_order(entry, spec, sys.path)}


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


@dataclass(frozen=True)
class SlaveSpec:
    """What a slave needs to know to start.

    Attributes:
        addr: Host and port to listen on.
        env_cls, mgr_cls: Names of its classes.
        args, kwargs: Passed to the environment's class after ``addr``.
        member: Fields of its `Membership`; None for the user's own.
        set_seed: True for fresh entropy, an int for a repeatable run, False to leave the random
            generators alone.
        index: Which of its simulation's slaves it is.
        incarnation: How often it was started again before.
    """

    addr: tuple[str, int]
    env_cls: str
    mgr_cls: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    member: tuple[str, bytes, str] | None
    set_seed: bool | int = True
    index: int = 0
    incarnation: int = 0

    def encode(self) -> bytes:
        """As bytes for the supervisor.

        Raises:
            EncodeError: An argument cannot travel.
            LoadError: A function among ``extra_serializers`` cannot be found by name.
        """
        return _encode({**self.__dict__, "kwargs": named_makers(self.kwargs)}, "slave")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The reverse of `encode`, in the slave, whose ``__main__`` is the script from here on."""
        told = _decode(data)
        return cls(**{**told, "kwargs": _loaded_makers(told["kwargs"])})


@dataclass(frozen=True)
class HostSpec:
    """What a host needs to know to start: what `MultiEnvironment` and `spawn_slaves` take.

    Attributes:
        name: The simulation's.
        menv_cls: Name of `MultiEnvironment` or of a subclass.
        addr, env_cls, mgr_cls, env_kwargs, seed: For its constructor, classes by name.
        slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs: For `spawn_slaves`; without
            addresses no slaves are started.
        restart: What a slave's loss leads to: what `RestartPolicy.of` takes.
    """

    name: str
    menv_cls: str
    addr: tuple[str, int]
    env_cls: str
    mgr_cls: str | None
    env_kwargs: Mapping[str, Any]
    seed: int | None
    slave_addrs: Sequence[tuple[str, int]]
    slave_env_cls: str
    slave_mgr_cls: str
    slave_kwargs: Sequence[Mapping[str, Any]] | None
    restart: str | tuple[str, int, float] = "temporary"

    def encode(self) -> bytes:
        """As bytes for the supervisor; errors as `SlaveSpec.encode`."""
        each = self.slave_kwargs
        told = {
            **self.__dict__,
            "env_kwargs": named_makers(self.env_kwargs),
            "slave_kwargs": None if each is None else [named_makers(kwargs) for kwargs in each],
        }
        return _encode(told, "simulation")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The reverse of `encode`, in the host, whose ``__main__`` is the script from here on."""
        told = _decode(data)
        each = told["slave_kwargs"]
        told["env_kwargs"] = _loaded_makers(told["env_kwargs"])
        told["slave_kwargs"] = None if each is None else [_loaded_makers(kwargs) for kwargs in each]
        return cls(**told)


def _encode(told: Mapping[str, Any], root: str) -> bytes:
    # The script apart, as decoding the rest may need its classes.
    script = MainScript.of_this_process()
    return pack((None if script is None else tuple(script), pack(told, root), {}))


def _decode(data: bytes) -> dict[str, Any]:
    script, inner, changes = unpack(data)
    adopt_script(None if script is None else MainScript(*script))
    return {**unpack(inner), **changes}


def changed(spec: bytes, **changes: Any) -> bytes:
    """An encoded spec with other values of some fields, the rest unopened."""
    script, inner, before = unpack(spec)
    return pack((script, inner, {**before, **changes}))


def named_makers(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """An environment's keyword arguments, its ``extra_serializers`` by name."""
    makers = kwargs.get("extra_serializers")
    if makers is None:
        return dict(kwargs)
    return {**kwargs, "extra_serializers": [portable_name(make) for make in makers]}


def _loaded_makers(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    named = kwargs.get("extra_serializers")
    if named is None:
        return dict(kwargs)
    return {**kwargs, "extra_serializers": [load_object(name) for name in named]}


def pack(value: Any, root: str = "value") -> bytes:
    """A value as one piece of bytes, large parts included."""
    payload = Codec(to_serializers(get_serializers())).encode(value, root=root)
    return b"".join(encode_frame(Kind.EVENT, 0, b"", payload.body, payload.parts))


def unpack(data: bytes) -> Any:
    """The reverse of `pack`."""
    (frame,) = FrameReader().receive_data(data)
    return Codec(to_serializers(get_serializers())).decode(Payload(frame.body, frame.parts))
