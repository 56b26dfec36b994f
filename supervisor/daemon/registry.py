"""The simulations of a daemon, by name: what clients may ask of them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from creamas_sc.errors import BadValue, CallRefused, StartError, UnknownSimulation, unwrapped
from creamas_sc.runtime.log_setup import bound
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.runtime.paths import check_name
from creamas_sc.wire.codec import Codec
from supervisor.actors.slot import Told
from supervisor.actors.tractor_adapter import Tree
from supervisor.daemon.simulation import ManagedSimulation
from supervisor.rpc_server import Method, start_apart
from supervisor.texts import shorten
from supervisor.timeouts import FATE_SECONDS, GRACE_SECONDS

__all__ = ["Registry", "check_end"]

log = logging.getLogger(__name__)

KEPT_RECORDS = 100
MAX_ABOUT_BYTES = 1 << 16
_ORDER = {"entry": str, "spec": bytes, "environ": dict, "cwd": str, "path": list}


class Registry:
    """Those that live, and records of the last that have ended.

    Args:
        tree: Where their processes live.
        nursery: Runs each from its start to its end.
        log_folder: Gets one log a simulation.
    """

    def __init__(self, tree: Tree, nursery: trio.Nursery, log_folder: Path) -> None:
        self._tree = tree
        self._nursery = nursery
        self._log_folder = log_folder
        self._living: dict[str, ManagedSimulation] = {}
        self._records: deque[Told] = deque(maxlen=KEPT_RECORDS)
        self._closing = False

    @property
    def methods(self) -> Mapping[str, Method]:
        """What a client may call."""
        return {
            "create": self.create,
            "take_back": self.take_back,
            "ls": self.ls,
            "inspect": self.inspect,
            "fate": self.fate,
            "close": self.close,
            "kill": self.kill,
        }

    def __len__(self) -> int:
        return len(self._living)

    # ---- creating

    async def create(
        self, name: str, order: Told, about: Told, timeout: float | None = None, token: str = ""
    ) -> Told:
        """Start a simulation's host; cancelled, it leaves nothing.

        Args:
            order: For the host: entry, spec, environ, cwd, path (`supervisor.actors.entry_runner`).
            about: Shown by `inspect`.
            timeout: Seconds until it is ready, 30 by default.
            token: For `take_back`.

        Returns:
            name, pid and info of the host.

        Raises:
            BadValue: The name will not do, or is taken; or another argument will not do.
            StartError: The host did not come up; why.
        """
        check_name(name, "simulation")
        _check_order(order)
        _check_about(about)
        seconds = None if timeout is None else _checked_seconds("timeout", timeout)
        if self._closing:
            raise CallRefused("the daemon is stopping")
        if name in self._living:
            state = self._living[name].state.value
            raise BadValue(
                f"there is a simulation {name!r} already, {state}: close it first "
                f"(creamas-supervisor close {name}), or use another name"
            )
        order = {key: order[key] for key in _ORDER}
        hosted = ManagedSimulation(name, order, about, str(self._log_folder / f"{name}.log"), token)
        self._living[name] = hosted
        log.info("simulation %s starts", name)
        start_apart(self._nursery, self._keep, hosted, seconds)
        try:
            await hosted.up.wait()
        except trio.Cancelled:
            hosted.abandon()
            with trio.CancelScope(shield=True):
                await hosted.close(0, b"")
            raise
        if hosted.failure is not None:
            raise StartError(hosted.failure)
        return {"name": name, "pid": hosted.pid, "info": hosted.info}

    async def take_back(self, name: str, token: str) -> None:
        """End what a `create` with that token has made, or is making; does nothing without it.

        A client that is cancelled asks for it: the answer that makes the simulation its own may be
        on the way to it then, and too late to be taken.
        """
        hosted = self._living.get(name) if isinstance(name, str) else None
        if hosted is not None and token and hosted.token == token:
            await hosted.kill("its creation was cancelled")

    async def _keep(self, hosted: ManagedSimulation, timeout: float | None) -> None:
        """See one simulation through its life, and into the records."""
        try:
            with bound(simulation=hosted.name):
                await hosted.run(self._tree, timeout)
        except Exception as error:  # the others have nothing to do with it
            log.exception("simulation %s broke inside the supervisor", hosted.name)
            hosted.cause = shorten(f"an error inside the supervisor: {unwrapped(error)!r}")
        finally:
            self._records.append(await hosted.details())
            del self._living[hosted.name]

    # ---- asking

    def find(self, name: object) -> ManagedSimulation:
        """The one of that name that lives.

        Raises:
            UnknownSimulation: There is none.
        """
        hosted = self._living.get(name) if isinstance(name, str) else None
        if hosted is None:
            raise self._unknown(name)
        return hosted

    def _unknown(self, name: object) -> UnknownSimulation:
        ended = [record for record in self._records if record["name"] == name]
        if ended:
            return UnknownSimulation(f"simulation {name!r} has ended: {ended[-1]['cause']}")
        there = f"there are {', '.join(sorted(self._living))}" if self._living else "there is none"
        return UnknownSimulation(f"no simulation {name!r:.100}: {there}; `create` makes one")

    async def ls(self, all: bool = False) -> list[Told]:
        """A summary of each that lives; with ``all``, before them, of the last that have ended."""
        ended = [_summary(record) for record in self._records] if all else []
        living = await _gather([partial(hosted.summary) for hosted in self._living.values()])
        return [*ended, *living]

    async def inspect(self, name: str) -> Told:
        """All that is known of one, the last of that name.

        Raises:
            UnknownSimulation: There never was one, or too long ago.
        """
        for record in reversed(self._records):
            if record["name"] == name and name not in self._living:
                return record
        return await self.find(name).details()

    async def fate(self, name: str, pid: int) -> Told:
        """What became of the host ``pid`` of a simulation: ended, expected, cause.

        Waits a little for its end to be known, and for what it leaves to be gone.
        """
        hosted = self._living.get(name) if isinstance(name, str) else None
        if hosted is not None and hosted.pid == pid:
            with trio.move_on_after(FATE_SECONDS):
                await hosted.ended.wait()
            ended = hosted.host_gone.is_set()
            return {"ended": ended, "expected": hosted.expected, "cause": hosted.cause}
        for record in reversed(self._records):
            if (record["name"], record["pid"]) == (name, pid):
                return {key: record[key] for key in ("expected", "cause")} | {"ended": True}
        return {"ended": True, "expected": False, "cause": "how it ended is not known any more"}

    # ---- ending

    async def close(self, name: str, grace: float = GRACE_SECONDS, payload: bytes = b"") -> Told:
        """End one by the ladder; the receipt of its host, with what the host returned.

        Raises:
            UnknownSimulation: There is none.
        """
        hosted = self.find(name)
        return await hosted.close(check_end(grace, payload), payload)

    async def kill(self, name: str, why: str = "") -> list[Told]:
        """End one at once, with no request; receipts of its processes.

        Args:
            why: For the cause of its end.

        Raises:
            UnknownSimulation: There is none.
            BadValue: ``why`` is no text.
        """
        if not isinstance(why, str):
            raise BadValue(f"why is {type(why).__name__}, not str")
        return await self.find(name).kill(why)

    async def close_all(self, grace: float = GRACE_SECONDS, payload: bytes = b"") -> list[Told]:
        """End all by the ladder, at once, and take no more; as `close`, with the names."""
        seconds = check_end(grace, payload)
        self._closing = True
        living = list(self._living.values())
        receipts = await _gather([partial(hosted.close, seconds, payload) for hosted in living])
        return [
            {"name": hosted.name, **receipt}
            for hosted, receipt in zip(living, receipts, strict=True)
        ]


async def _gather(calls: Sequence[Any]) -> list[Any]:
    """The answers of calls that are made at once, in order."""
    answers: list[Any] = [None] * len(calls)

    async def one(index: int) -> None:
        answers[index] = await calls[index]()

    async with open_unwrapping_nursery() as nursery:
        for index in range(len(calls)):
            nursery.start_soon(one, index)
    return answers


def _summary(record: Told) -> Told:
    return {key: record[key] for key in ("name", "state", "pid", "since", "cause", "host")}


def _check_order(order: object) -> None:
    if not isinstance(order, dict):
        raise BadValue("the order for the host is no dict")
    for key, cls in _ORDER.items():
        if not isinstance(order.get(key), cls):
            raise BadValue(f"the order for the host has no {key!r} that is {cls.__name__}")
    texts = [*order["path"], *order["environ"], *order["environ"].values()]
    if not all(isinstance(text, str) for text in texts):
        raise BadValue("path and environ of the order for the host have strings only")


def _check_about(about: object) -> None:
    if not isinstance(about, dict):
        raise BadValue("what is told about a simulation is no dict")
    body, parts = Codec().encode(about)
    size = len(body) + sum(map(len, parts))
    if size > MAX_ABOUT_BYTES:
        raise BadValue(f"{size} bytes about a simulation are over the limit of {MAX_ABOUT_BYTES}")


def check_end(grace: object, payload: object) -> float:
    """The grace in seconds, of a request to end.

    Raises:
        BadValue: It is no such number, or the payload is not bytes.
    """
    if not isinstance(payload, bytes):
        raise BadValue(f"payload is {type(payload).__name__}, not bytes")
    return _checked_seconds("grace", grace)


def _checked_seconds(what: str, value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < 1e9:  # type: ignore[operator]
        raise BadValue(f"{what} is {value!r}: give seconds from 0 up")
    return float(value)  # type: ignore[arg-type]
