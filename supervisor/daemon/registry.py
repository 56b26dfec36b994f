"""The simulations of a daemon, by name: those that live, and records of those that have ended.

A simulation is in ``_living`` from `create` until nothing of it is left, in a task that belongs to
no client (`_run`). Then it becomes a record, which `inspect` shows, and whose cause is part of all
errors about it. A creator that is cancelled takes its simulation with it: either `create` sees the
cancellation, or the client, whose answer was on the way, sends `undo_create`.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from creamas_sc.errors import BadValue, CallRefused, StartError, UnknownSimulation, unwrapped
from creamas_sc.foreign import shorten, shown
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.log_files import begin_run
from creamas_sc.runtime.log_setup import bound
from creamas_sc.runtime.paths import check_name
from creamas_sc.supervisor_client import messages
from creamas_sc.wire.codec import Codec
from supervisor.daemon.managed_simulation import ManagedSimulation
from supervisor.nodes.registry import NodeRegistry
from supervisor.rpc_server import start_apart
from supervisor.timeouts import EXIT_KNOWN_SECONDS, GRACE_SECONDS, START_SECONDS

log = logging.getLogger(__name__)

# Records of simulations that have ended: how many are kept, and how many bytes.
KEPT_RECORDS = 100
KEPT_BYTES = 16 << 20
# A larger record is kept without its environment variables, import path and results.
MAX_RECORD_BYTES = 1 << 20
MAX_ABOUT_BYTES = 1 << 16
_ORDER = {"entry": str, "spec": bytes, "environ": dict, "cwd": str, "path": list}


class Registry:
    """The simulations of a daemon.

    Args:
        nursery: Runs each from its start to its end.
        log_folder: Gets one log per simulation.
        nodes: Where slaves may run.
    """

    def __init__(self, nursery: trio.Nursery, log_folder: Path, nodes: NodeRegistry) -> None:
        self._nodes = nodes
        self._nursery = nursery
        self._log_folder = log_folder
        self._living: dict[str, ManagedSimulation] = {}
        self._records: deque[messages.HostDetails] = deque(maxlen=KEPT_RECORDS)
        self._closing = False

    def __len__(self) -> int:
        return len(self._living)

    # ---- creating

    async def create(
        self,
        name: str,
        order: messages.ProcessOrder,
        about: dict[str, Any],
        timeout: float | None = None,
        token: str = "",
    ) -> dict[str, Any]:
        """Start a simulation's host; cancelled, it leaves nothing.

        Args:
            order: For the host.
            about: Shown by `inspect`.
            timeout: Seconds until it is ready, 30 by default.
            token: For `undo_create`.

        Raises:
            BadValue: The name is invalid or in use, or another argument is invalid.
            StartError: The host did not come up; the message says why.
        """
        check_name(name, "simulation")
        order = _checked_order(order)
        _check_about(about)
        seconds = None if timeout is None else _checked_seconds("timeout", timeout)
        await self._wait_for_name(name, START_SECONDS if seconds is None else seconds)
        if self._closing:
            raise CallRefused("the daemon is stopping")
        log_file = self._log_folder / f"{name}.log"
        with suppress(OSError):  # its processes say so
            begin_run(log_file, name)
        simulation = ManagedSimulation(name, order, about, str(log_file), self._nodes, token)
        self._living[name] = simulation
        log.info("simulation %s starts", name)
        start_apart(self._nursery, self._run, simulation, seconds)
        try:
            await simulation.up.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await simulation.close(0, b"")
            raise
        if simulation.ended.is_set():
            raise StartError(simulation.cause)
        return {"name": name, "pid": simulation.pid, "info": simulation.info}

    async def _wait_for_name(self, name: str, seconds: float) -> None:
        """Wait while a simulation of that name is ending.

        Raises:
            BadValue: There is one that is not, or that has not ended in time.
        """
        with trio.move_on_after(seconds):
            while (there := self._living.get(name)) is not None and await there.is_ending():
                await there.ended.wait()
        if (there := self._living.get(name)) is not None:
            raise BadValue(
                f"there is a simulation {name!r} already, {there.state.value}: close it first "
                f"(creamas-supervisor close {name}), or use another name"
            )

    async def undo_create(self, name: str, token: str) -> None:
        """End a simulation that was created with this ``token``, or is being created.

        A client that is cancelled asks for it: the answer of its `create` may be on the way.
        """
        simulation = self._living.get(name) if isinstance(name, str) else None
        if simulation is not None and token and simulation.token == token:
            await simulation.kill("its creation was cancelled")

    async def _run(self, simulation: ManagedSimulation, timeout: float | None) -> None:
        """Run one simulation to its end, and make a record of it."""
        try:
            with bound(simulation=simulation.name):
                await simulation.run(timeout)
        except Exception as error:  # the other simulations go on
            log.exception("simulation %s broke inside the supervisor", simulation.name)
            simulation.cause = shorten(f"an error inside the supervisor: {unwrapped(error)!r}")
        finally:
            self._keep(await simulation.details())
            simulation.forget_order()
            del self._living[simulation.name]

    def _keep(self, record: messages.HostDetails) -> None:
        if _size(record) > MAX_RECORD_BYTES:
            record = {**record, "environ": {}, "path": [], "stop_results": []}
        self._records.append(record)
        while sum(map(_size, self._records)) > KEPT_BYTES:
            self._records.popleft()

    # ---- asking

    def find(self, name: object) -> ManagedSimulation:
        """The living simulation of that name.

        Raises:
            UnknownSimulation: There is none; the message says what became of it.
        """
        simulation = self._living.get(name) if isinstance(name, str) else None
        if simulation is not None:
            return simulation
        ended = [record for record in self._records if record["name"] == name]
        if ended:
            raise UnknownSimulation(f"simulation {name!r} has ended: {ended[-1]['cause']}")
        there = f"there are {', '.join(sorted(self._living))}" if self._living else "there is none"
        raise UnknownSimulation(f"no simulation {name!r:.100}: {there}; `create` makes one")

    async def ls(self, all: bool = False) -> list[messages.HostSummary]:
        """A summary of each that lives; with ``all``, before them, of the last that have ended."""
        ended = [_summary(record) for record in self._records] if all else []
        return [*ended, *await at_once(ManagedSimulation.summary, list(self._living.values()))]

    async def inspect(self, name: str) -> messages.HostDetails:
        """All that is known of the last simulation of that name.

        Raises:
            UnknownSimulation: There never was one, or too long ago.
        """
        ended = [record for record in self._records if record["name"] == name]
        if ended and name not in self._living:
            return ended[-1]
        return await self.find(name).details()

    async def host_status(self, name: str, pid: int) -> messages.HostStatus:
        """What became of the host ``pid`` of a simulation.

        Waits a little for its end to be known, and for what it leaves to be gone.
        """
        simulation = self._living.get(name) if isinstance(name, str) else None
        if simulation is not None and simulation.pid == pid:
            with trio.move_on_after(EXIT_KNOWN_SECONDS):
                await simulation.ended.wait()
            ended = simulation.host_gone.is_set()
            return {"ended": ended, "expected": simulation.expected, "cause": simulation.cause}
        for record in reversed(self._records):
            if (record["name"], record["pid"]) == (name, pid):
                return {"ended": True, "expected": record["expected"], "cause": record["cause"]}
        return {"ended": True, "expected": False, "cause": "how it ended is no longer known"}

    async def stacks(self, name: str, seconds: float) -> dict[str, Any]:
        """Where the code of a simulation's slaves on nodes is just now, by slot.

        Raises:
            UnknownSimulation: There is none.
            BadValue: ``seconds`` is not valid.
        """
        return await self.find(name).stacks(_checked_seconds("seconds", seconds))

    # ---- ending

    async def close(
        self, name: str, grace: float = GRACE_SECONDS, payload: bytes = b""
    ) -> messages.StopResult:
        """Stop one; how its host ended, with what it returned.

        Raises:
            UnknownSimulation: There is none.
        """
        simulation = self.find(name)
        return await simulation.close(check_end(grace, payload), payload)

    async def kill(self, name: str, why: str = "") -> list[messages.StopResult]:
        """End one at once, without a request; how each of its processes ended.

        Args:
            why: For the cause of its end.

        Raises:
            UnknownSimulation: There is none.
            BadValue: ``why`` is not a string.
        """
        if not isinstance(why, str):
            raise BadValue(f"why must be str, not {type(why).__name__}")
        return await self.find(name).kill(why)

    async def close_all(
        self, grace: float = GRACE_SECONDS, payload: bytes = b"", why: str = ""
    ) -> list[messages.NamedStopResult]:
        """Stop all in parallel, as `close` does, and create no more.

        Args:
            why: For the causes of their ends.
        """
        self._closing = True

        async def close(simulation: ManagedSimulation) -> messages.NamedStopResult:
            return {"name": simulation.name, **await simulation.close(grace, payload, why)}

        return await at_once(close, list(self._living.values()))


def _summary(record: messages.HostDetails) -> messages.HostSummary:
    return {key: record[key] for key in messages.HostSummary.__annotations__}  # type: ignore[literal-required, return-value]


def _size(record: messages.HostDetails) -> int:
    """About how many bytes a record takes: its parts that may be large."""
    texts = [*record["path"], *record["environ"], *record["environ"].values()]
    payloads = [result["payload"] or b"" for result in record["stop_results"]]
    return sum(map(len, texts)) + sum(map(len, payloads))


def _checked_order(order: object) -> messages.ProcessOrder:
    """What a client has sent as an order, without anything else that is in it.

    Raises:
        BadValue: It is not an order.
    """
    if not isinstance(order, dict):
        raise BadValue(f"the order of the host must be dict, not {type(order).__name__}")
    for key, cls in _ORDER.items():
        if not isinstance(order.get(key), cls):
            raise BadValue(f"the order of the host: {key!r} must be {cls.__name__}")
    texts = [order["cwd"], *order["path"], *order["environ"], *order["environ"].values()]
    try:
        for text in texts:
            text.encode("latin-1")
    except (AttributeError, UnicodeEncodeError):
        raise BadValue(
            "the order of the host: cwd, path and environ must contain only strings, with a "
            "character for each byte"
        ) from None
    return {key: order[key] for key in _ORDER}  # type: ignore[return-value]


def _check_about(about: object) -> None:
    if not isinstance(about, dict):
        raise BadValue(f"the description of a simulation must be dict, not {type(about).__name__}")
    body, parts = Codec().encode(about)
    size = len(body) + sum(map(len, parts))
    if size > MAX_ABOUT_BYTES:
        raise BadValue(
            f"the description of a simulation has {size} bytes, over the limit of {MAX_ABOUT_BYTES}"
        )


def check_end(grace: object, payload: object) -> float:
    """The grace in seconds, of a request to end.

    Raises:
        BadValue: It is not a number of seconds, or the payload is not bytes.
    """
    if not isinstance(payload, bytes):
        raise BadValue(f"payload must be bytes, not {type(payload).__name__}")
    return _checked_seconds("grace", grace)


def _checked_seconds(what: str, value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < 1e9:  # type: ignore[operator]
        raise BadValue(f"{what} must be a number of seconds, 0 or more, not {shown(value)}")
    return float(value)  # type: ignore[arg-type]
