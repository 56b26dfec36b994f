"""A slave: the process that holds one environment and its agents, under a supervisor."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, Self

import trio

from creamas_sc.errors import AgentErrors
from creamas_sc.home import own_home
from creamas_sc.identity import Membership, membership
from creamas_sc.loading import MainScript, adopt_script, load_class, load_object, portable_name
from creamas_sc.serializers import get_serializers, to_serializers
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame

__all__ = [
    "SLAVE_ENTRY",
    "Control",
    "SlaveSpec",
    "main",
    "name_process",
    "pack",
    "seed_process",
    "unpack",
]

SLAVE_ENTRY = "creamas_sc.slave:main"


class Control(Protocol):
    """A process's line to its supervisor."""

    async def ready(self, info: bytes) -> None:
        """Report that the process is up; once."""

    async def wait_stop(self) -> bytes:
        """Wait until asked to stop; the payload of the request."""


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
    """

    addr: tuple[str, int]
    env_cls: str
    mgr_cls: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    member: tuple[str, bytes, str] | None
    set_seed: bool | int = True
    index: int = 0

    def encode(self) -> bytes:
        """As bytes for the supervisor.

        Raises:
            EncodeError: An argument cannot travel.
            LoadError: A function among ``extra_serializers`` cannot be found by name.
        """
        kwargs = dict(self.kwargs)
        makers = kwargs.pop("extra_serializers", None)
        named = None if makers is None else [portable_name(make) for make in makers]
        told = {**self.__dict__, "kwargs": kwargs, "extra_serializers": named}
        # Apart, as decoding the rest may need the script's classes.
        script = MainScript.of_this_process()
        return pack((None if script is None else script.fields(), pack(told, "slave")))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The reverse of `encode`, in the slave, whose ``__main__`` is the script from here on."""
        script, inner = unpack(data)
        adopt_script(None if script is None else MainScript(*script))
        told = unpack(inner)
        named = told.pop("extra_serializers")
        if named is not None:
            told["kwargs"]["extra_serializers"] = [load_object(name) for name in named]
        return cls(**told)


def pack(value: Any, root: str = "value") -> bytes:
    """A value as one piece of bytes, large parts included."""
    payload = Codec(to_serializers(get_serializers())).encode(value, root=root)
    return b"".join(encode_frame(Kind.EVENT, 0, b"", payload.body, payload.parts))


def unpack(data: bytes) -> Any:
    """The reverse of `pack`."""
    (frame,) = FrameReader().receive_data(data)
    return Codec(to_serializers(get_serializers())).decode(Payload(frame.body, frame.parts))


async def main(spec: bytes, control: Control) -> bytes:
    """The entry of a slave's process: serve an environment until asked to stop.

    Returns:
        The packed texts of what `save_info` or the agents' ``close`` raised.
    """
    told = SlaveSpec.decode(spec)
    env_cls, mgr_cls = load_class(told.env_cls), load_class(told.mgr_cls)
    name_process(f"creamas: {env_cls.__name__}({told.addr[0]}:{told.addr[1]})")
    seed_process(told.set_seed, told.index)
    if told.member is not None:
        membership.set(Membership(*told.member))
    failures: list[str] = []
    async with own_home():
        env = env_cls(told.addr, *told.args, **told.kwargs)
        if told.set_seed is not True:
            env._seed = told.set_seed
            env._index = 1 + told.index
        await env.open(mgr_cls)
        await control.ready(pack(env.base_url))
        folder = await _first_to_stop(control, env.manager)
        try:
            await env.close(folder=folder or env.log_folder, as_coro=True)
        except AgentErrors as errors:
            failures = [f"{e}\n{e.traceback_text}" for e in errors.failures.values()]
    return pack(failures)


async def _first_to_stop(control: Control, manager: Any) -> str | None:
    """Wait for the supervisor's request, whose folder is returned, or the manager's own `stop`."""
    folder: str | None = None

    async def asked() -> None:
        nonlocal folder
        folder = unpack(await control.wait_stop() or pack(None))
        nursery.cancel_scope.cancel()

    async def told() -> None:
        await manager.stop_received.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked)
        nursery.start_soon(told)
    return folder


def seed_process(set_seed: bool | int, index: int = 0) -> None:
    """Seed the process's own random generators: Python's, and numpy's where it is installed."""
    if set_seed is False:
        return
    if set_seed is True:
        random.seed()
        if "numpy" in sys.modules:  # imported later, it seeds itself
            sys.modules["numpy"].random.seed()
        return
    generator = random.Random(f"{set_seed}/{index}")
    random.seed(generator.getrandbits(64))
    if find_spec("numpy") is not None:
        import_module("numpy").random.seed(generator.getrandbits(32))


def name_process(title: str) -> None:
    """Show ``title`` in ``ps``, where setproctitle is installed."""
    if find_spec("setproctitle") is not None:
        import_module("setproctitle").setproctitle(title)
