"""What is known of a daemon's simulations from moment to moment: for the command top."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import BadValue, ConnectionLost, CreamasError, DeadlineExceeded
from creamas_sc.runtime.log_tail import LogTail, parsed
from creamas_sc.runtime.paths import exposed
from supervisor.cli.display import seen_by_client

if TYPE_CHECKING:
    from creamas_sc.client import SyncClient, SyncSimulation

# How long a host may take to answer: others are to be shown meanwhile.
ANSWER_SECONDS = 2.0
KEPT_VALUES = 120
LOG_LINES = 8
# What there is to draw of a simulation without a record.
STEP_RATE = "steps/s"


@dataclass
class Seen:
    """One simulation, as it was seen last.

    Attributes:
        summary: As `ls` has it.
        progress: How far it is; None if its host does not answer.
        loads: As of `process_loads`, each process with ``cpu``, the share of a processor that it
            has used since the reading before (None at first); None if the host does not answer.
        metrics: The latest values of each metric.
        log: The last entries of its log; ``new`` of them were not there before.
        problem: Why something is not known.
    """

    summary: Mapping[str, Any]
    progress: Mapping[str, Any] | None = None
    loads: Mapping[str, Any] | None = None
    metrics: Mapping[str, list[float]] = field(default_factory=dict)
    log: list[Mapping[str, Any]] = field(default_factory=list)
    new: int = 0
    problem: str = ""

    @property
    def name(self) -> str:
        """The simulation's."""
        return str(self.summary["name"])


class Watch:
    """Watches one simulation, as a client of it.

    Args:
        log: Where its processes log.
    """

    def __init__(self, client: SyncClient, name: str, pid: int | None, log: Path) -> None:
        self.pid = pid
        self._client = client
        self._name = name
        self._sim: SyncSimulation | None = None
        self._rates: deque[float] = deque(maxlen=KEPT_VALUES)
        self._cpu: dict[tuple[str, int], tuple[float, float]] = {}
        self._tail: LogTail | None = None
        self._log: deque[Mapping[str, Any]] = deque(maxlen=LOG_LINES)
        if log.parent.is_dir() and exposed(log.parent) is None:
            with suppress(OSError):
                self._tail = LogTail(log.open("rb"), LOG_LINES, name)

    def look(self, summary: Mapping[str, Any]) -> Seen:
        """Look at it now."""
        seen = Seen(summary)
        if self._tail is not None:
            entries = list(map(parsed, self._tail.read(whole=False)))
            seen.new = min(len(entries), LOG_LINES)
            self._log.extend(entries)
        seen.log = list(self._log)
        host = summary["host"]
        if host is None:
            silent = f"its host (pid {summary['pid']}) does not answer"
            seen.problem = silent if summary["state"] == "running" else summary["cause"]
            return seen
        try:
            seen.loads = self._shares(self.simulation().process_loads())
        except CreamasError as error:
            self._detach()
            seen.problem = " ".join(str(error).split())
        seen.progress = host if self._sim is None else seen_by_client(host)
        rate = host.get("steps_per_second")
        self._rates.append(rate or 0.0)
        seen.metrics = {**_recorded(host.get("record")), STEP_RATE: list(self._rates)}
        return seen

    def simulation(self) -> SyncSimulation:
        """The simulation itself; this attaches to it.

        Raises:
            CreamasError: It does not answer, or has ended.
        """
        if self._sim is None:
            self._sim = self._client.attach(self._name)
            self._sim.timeout = ANSWER_SECONDS
        return self._sim

    def _shares(self, loads: Mapping[str, Any]) -> dict[str, Any]:
        now, before, self._cpu = loads["time"], self._cpu, {}

        def shared(process: Mapping[str, Any]) -> dict[str, Any]:
            who = process.get("node", ""), process["pid"]
            seconds, share = process["cpu_seconds"], None
            if seconds is not None:
                then, used = before.get(who, (now, seconds))
                share = (seconds - used) / (now - then) if now > then else None
                self._cpu[who] = now, seconds
            return {**process, "cpu": share}

        return {"host": shared(loads["host"]), "slaves": list(map(shared, loads["slaves"]))}

    def _detach(self) -> None:
        if self._sim is not None:
            self._sim.detach()
            self._sim = None

    def close(self) -> None:
        """Detach; close the log."""
        self._detach()
        if self._tail is not None:
            self._tail.close()


def _recorded(path: str | None) -> dict[str, list[float]]:
    """The latest metrics of the record that is written at ``path``, if there is one."""
    if path is None:
        return {}
    from creamas_sc import results

    try:
        found = results.open(path).latest_metrics(KEPT_VALUES)
    except (OSError, BadValue):  # it is only beginning, or on another machine
        return {}
    numbers = {
        name: [float(value) for _, value in values if isinstance(value, (int, float))]
        for name, values in found.items()
    }
    return {name: values for name, values in numbers.items() if values}


class Watches:
    """Watches simulations of a daemon; those that are not asked for any more are left."""

    def __init__(self, client: SyncClient) -> None:
        self._client = client
        self._logs = Path(client.status()["log"]).with_suffix("")
        self._watches: dict[str, Watch] = {}

    def look(self, name: str | None, all: bool) -> list[Seen]:
        """Look at all simulations now, at one of them, or at all, in detail.

        Args:
            name: The one.
            all: Whether at all.
        """
        summaries = self._client.ls()
        detailed = {each["name"] for each in summaries if all or each["name"] == name}
        for gone in self._watches.keys() - detailed:
            self._watches.pop(gone).close()
        found = []
        for summary in summaries:
            if summary["name"] in detailed:
                found.append(self._watch(summary).look(summary))
            else:
                found.append(Seen(summary, summary["host"]))
        return found

    def _watch(self, summary: Mapping[str, Any]) -> Watch:
        name, pid = summary["name"], summary["pid"]
        watch = self._watches.get(name)
        if watch is None or watch.pid != pid:  # it is another of that name
            if watch is not None:
                watch.close()
            watch = Watch(self._client, name, pid, self._logs / f"{name}.log")
            self._watches[name] = watch
        return watch

    def pause(self, name: str) -> str:
        """Have a simulation pause after its step; returns what to say of it."""
        sim = self._watches[name].simulation()
        try:
            sim.pause(0)
        except DeadlineExceeded as error:
            if not error.acknowledged:
                raise
            return f"{name} pauses after this step"
        return f"{name} is paused"

    def resume(self, name: str) -> str:
        """Have a simulation go on; returns what to say of it."""
        self._watches[name].simulation().resume()
        return f"{name} goes on"

    def close(self) -> None:
        """Leave all."""
        for watch in self._watches.values():
            with suppress(ConnectionLost):
                watch.close()


def watches(client: SyncClient) -> closing[Watches]:
    """Watch simulations until the block ends."""
    return closing(Watches(client))
