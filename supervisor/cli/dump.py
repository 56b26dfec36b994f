"""The command dump: where the code of a simulation's processes is just now."""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from creamas_sc.runtime.stack_dumps import Answer, ask
from supervisor.cli import output
from supervisor.cli.daemon_connection import connected, extra_time
from supervisor.cli.exits import Exit
from supervisor.cli.params import Daemon, Json, Name, Seconds

ANSWER_SECONDS = 1.0
# Of a slave that was on a node, and has ended since it was listed.
_GONE = Answer("ended", None)


def dump(
    name: Name,
    /,
    *,
    all: Annotated[bool, Parameter(help="Show the library's own tasks and frames, too.")] = False,
    timeout: Seconds = ANSWER_SECONDS,
    daemon: Daemon = None,
    json: Json = False,
) -> int:
    """Show where the agents of a simulation are just now.

    For its host and each slave: the line that runs, the lines at which agents
    wait and what for, and the threads. Nothing is stopped, and the processes
    need not answer calls: an agent that computes without awaiting is shown,
    and a slave that is stopped is named.

    For example:

        creamas-supervisor dump novelty
        creamas-supervisor dump novelty --all --json

    Args:
        timeout: Seconds to wait for the slowest process. Default: 1.
    """
    seconds = ANSWER_SECONDS if timeout is None else timeout
    with connected(daemon) as (client, _), extra_time(client, seconds):
        details = client.inspect(name)
        processes = details.get("processes") or []
        here = [process for process in processes if not process.get("node")]
        there = {} if len(here) == len(processes) else client.stacks(name, seconds)
    told = ask([each["pid"] for each in here], seconds)
    answers = {**there, **dict(zip(_slots(here), told, strict=True))}
    shown = [(each, answers.get(each["slot"], _GONE)) for each in processes]
    data = [{**process, **answer._asdict()} for process, answer in shown]
    addresses, since = _addresses(details), details["since"]
    sections = [_Section(*each, addresses, since, all) for each in shown]
    output.emit(data, json, lambda: _lines(sections))
    if not shown:
        output.note(f"{name} is {details['state']} and has no processes")
    return Exit.DONE


def _slots(processes: Sequence[Mapping[str, Any]]) -> list[str]:
    return [each["slot"] for each in processes]


def _addresses(details: Mapping[str, Any]) -> dict[str, str]:
    """Slot -> address of each slave, as far as the host says so."""
    host = details.get("host") or {}
    return dict(zip(host.get("slots", ()), host.get("addrs", ()), strict=False))


def _lines(sections: Sequence[_Section]) -> Iterator[str]:
    for place, section in enumerate(sections):
        if place:
            yield ""
        yield from section.lines()


class _Section:
    """What is said of one process.

    Args:
        since: When the simulation began: files that were changed later are not what runs.
        all: Whether to show what is the library's own.
    """

    def __init__(
        self,
        process: Mapping[str, Any],
        answer: Answer,
        addresses: Mapping[str, str],
        since: float,
        all: bool,
    ) -> None:
        self._process = process
        self._answer = answer
        self._report: Mapping[str, Any] = answer.report or {}
        about = self._report.get("about") or {}
        self._about = about
        self._address = about.get("address") or addresses.get(process["slot"])
        self._since = since
        self._all = all

    def lines(self) -> Iterator[str]:
        """All lines."""
        process = self._process
        where = f", {self._address}" if self._address else ""
        on = f" on node {process['node']}" if process.get("node") else ""
        yield f"{process['slot']}{where}, pid {process['pid']}{on}: {self._answer.state}"
        if self._answer.problem:
            yield f"  {self._answer.problem}"
        if self._answer.main_thread:
            yield "  its main thread, the innermost call first:"
            yield from (f"    {line.strip()}" for line in self._answer.main_thread[1:])
        if "places" in self._report:
            yield from self._of_report(self._report)

    def _of_report(self, report: Mapping[str, Any]) -> Iterator[str]:
        if waits := self._about.get("waits_for"):
            yield f"  its step has taken {max(waits.values()):.1f} s, and waits for:"
            yield from (f"    {address}" for address in waits)
        running, places = report["running"], report["places"]
        if running is not None and self._shows(running):
            yield "  runs:"
            yield from self._frames(running["frames"])
        for place in places:
            yield from output.wrapped(f"{self._title(place)}:", indent=2)
            waits = place["waits"]
            if len(waits) > 1:
                yield from (f"    of {self._awaited(each)}" for each in waits)
            yield from self._frames(place["frames"], bool(waits))
        for thread in report["threads"]:
            if self._shows(thread):
                yield f"  thread {thread['name']}:"
                yield from self._frames(thread["frames"])
        own = report["own"]
        if self._all:
            for place in own:
                yield f"  {self._title(place)}:"
                yield from self._frames(place["frames"])
        elif not places and not (running is not None and self._shows(running)):
            tasks = output.count(sum(place["count"] for place in own), "task")
            yield f"  no agent acts here; {tasks} of the library wait (see --all)"
        if report["unread"]:
            yield "  there are more tasks than could be read at once"

    def _shows(self, stack: Mapping[str, Any]) -> bool:
        return self._all or any(of_user for *_, of_user, _ in stack["frames"])

    def _title(self, place: Mapping[str, Any]) -> str:
        tasks, agents, total = place["count"], place["agents"], place["of_agents"]
        name = place["name"].rpartition(".")[2] or "task"
        who = self._names(agents) or (name if tasks == 1 else f"{tasks:,} of {name}")
        more = f" and {total - len(agents):,} more" if total > len(agents) else ""
        verb = "wait" if (total or tasks) > 1 else "waits"
        waits = place["waits"]
        what = " for answers" if waits else ""
        if len(waits) == 1:
            what = f" for {'the answer' if waits[0]['calls'] == 1 else 'answers'}"
            what += f" of {self._awaited(waits[0])}"
        times = f" ({tasks:,} tasks)" if agents and tasks > total else ""
        return f"{who}{more} {verb}{what}{times}"

    def _names(self, agents: Sequence[str]) -> str:
        """Agents of this process, whose address the first line has: "Painter /3, /4, Critic /5"."""
        names, before = [], ""
        for agent in agents:
            cls, _, address = agent.partition(" ")
            number = f"/{address.rpartition('/')[2]}"
            names.append(number if cls == before else f"{cls} {number}")
            before = cls
        return ", ".join(names)

    def _awaited(self, awaited: Mapping[str, Any]) -> str:
        """A method, and the agent or agents that are called."""
        method, where = awaited["method"], awaited["environment"]
        if awaited["agents"] == 1:
            return (
                f"{method} of {where}{awaited['number']}"
                if where
                else (f"{method} of /{awaited['number']} here")
            )
        return f"{method} of {awaited['agents']:,} agents {f'of {where}' if where else 'here'}"

    def _frames(self, frames: Sequence[Sequence[Any]], waits: bool = False) -> Iterator[str]:
        """Each frame in a line or two; of the library's own, the one that the user's code called.

        Args:
            waits: The title says what that is.
        """
        users = [place for place, frame in enumerate(frames) if frame[3]]
        called = users[-1] + 1 if users else len(frames) - 1
        before = ""
        for place, (file, number, name, of_user, agent) in enumerate(frames):
            if self._all or of_user or (place == called and not waits):
                new = agent and before and agent != before
                who = f"  ({self._names([agent])})" if new else ""
                yield f"    {_short(file)}:{number} in {name}{who}"
                text = self._source(file, number) if self._all or of_user else ""
                yield from [f"      {text}"] if text else ()
            before = agent or before

    def _source(self, file: str, number: int) -> str:
        """The line of a file, if it is still what runs."""
        try:
            if not os.path.isabs(file) or os.stat(file).st_mtime > self._since:
                return ""
        except OSError:
            return ""
        return linecache.getline(file, number).strip() if os.path.isfile(file) else ""


def _short(file: str) -> str:
    """A path as it is short: from the working folder, or from where libraries are."""
    relative = os.path.relpath(file) if os.path.isabs(file) else file
    _, found, library = file.rpartition("/site-packages/")
    return library if found else (file if relative.startswith("..") else relative)
