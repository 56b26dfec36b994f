"""Where the agents of this process are just now: the stacks of its tasks and threads.

The report is made in a signal's handler (see `creamas_sc.runtime.stack_dumps`): it only reads,
calls no code of users, and takes little time. Tasks at the same place are one entry, with how many
they are and a few of their agents.

A task's stack is the chain of what each coroutine awaits. That chain breaks where this package
drives a coroutine by hand, at the frames of `_DRIVEN`; and agents that wait for answers in rounds
have no task at all.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import dropwhile
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

import trio

from creamas_sc.core.agent import Agent
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.rounds.driver import Rounds, parked_activities
from creamas_sc.runtime.coroutines import watch
from creamas_sc.runtime.stack_dumps import answering

# How long the reading of tasks may take, and what is kept of it.
READ_SECONDS = 0.1
MAX_PLACES = 100
MAX_FRAMES = 50
MAX_AGENTS = 5
MAX_AWAITED = 20

_LIBRARIES = frozenset(
    {"anyio", "creamas_sc", "msgpack", "outcome", "supervisor", "tractor", "tricycle", "trio"}
    | sys.stdlib_module_names
)


def answering_for(about: Callable[[], Mapping[str, Any]]) -> AbstractContextManager[None]:
    """Answer in the block those who ask where this process's agents are.

    Args:
        about: Says at once what the process is; plain values.
    """
    return answering(partial(_report, about))


def _report(about: Callable[[], Mapping[str, Any]], frame: FrameType | None) -> dict[str, Any]:
    """What is answered.

    ``about`` as given; ``running``, the frames of the task that runs, None if all wait; ``places``,
    where tasks are that run users' code, and ``own``, where the others are; ``threads``; and
    ``unread``, whether there was no time for all tasks.
    """
    places = _Places(time.perf_counter() + READ_SECONDS)
    running = _running(frame)
    for task in _tasks():
        if not places.add(_chain(task.coro), task.name):
            break
    for activity, call in parked_activities():
        if not places.add(_chain(activity.work), "", _awaited_by(call)):
            break
    threads = [
        {"name": name, "frames": list(map(_plain, frames))} for name, frames in _other_threads()
    ]
    found = places.found.values()
    return {
        "about": dict(about()),
        "running": None if running is None else _Place(running, "").plain(),
        "places": [place.plain() for place in found if place.of_users],
        "own": [place.plain() for place in found if not place.of_users],
        "threads": threads,
        "unread": places.unread,
    }


# ---- places


class _Awaited(NamedTuple):
    """The method for whose answer a task waits, and where the called agent is.

    Attributes:
        url: Of the environment; empty for this one.
        number: Of the agent there.
    """

    method: str
    url: str
    number: str


class _Place:
    """Where one or more tasks are.

    Args:
        frames: From the outermost one on.
    """

    def __init__(self, frames: list[FrameType], name: str) -> None:
        self.count = 0
        self.agents: dict[int, Agent] = {}
        self.awaited: dict[tuple[str, str], list[str]] = {}
        self._name = name
        self.of_users = any(map(_is_users, frames))
        self._frames = list(map(_plain, frames[-MAX_FRAMES:]))

    def plain(self) -> dict[str, Any]:
        """As plain values, with the first agents by number.

        ``waits`` says for whose answers the tasks wait: method, environment, how many calls there
        are, and of how many agents, the first of which has that number.
        """
        awaited = sorted(self.awaited.items(), key=lambda item: -len(item[1]))[:MAX_AWAITED]
        waits = [
            {"method": method, "environment": url, "calls": len(numbers),
             "agents": len(set(numbers)), "number": numbers[0]}
            for (method, url), numbers in awaited
        ]  # fmt: skip
        agents = [self.agents[number] for number in sorted(self.agents)[:MAX_AGENTS]]
        return {
            "count": self.count, "agents": list(map(_title, agents)),
            "of_agents": len(self.agents), "name": self._name,
            "waits": waits, "frames": self._frames,
        }  # fmt: skip


class _Places:
    """The places of tasks, in the order in which they were found.

    Args:
        until: When to stop, on the clock of `time.perf_counter`.
    """

    def __init__(self, until: float) -> None:
        self.found: dict[Any, _Place] = {}
        self.unread = False
        self._until = until

    def add(self, frames: Iterable[FrameType], name: str, awaited: _Awaited | None = None) -> bool:
        """Add a task, or what is driven like one; whether there is time for more."""
        if time.perf_counter() > self._until:
            self.unread = True
            return False
        frames = list(frames)
        awaited = awaited or next(filter(None, map(_awaited_in, reversed(frames))), None)
        # What calls the user's code differs: the first act of a step runs in the step's own task.
        users = list(dropwhile(lambda frame: not _is_users(frame), frames))
        method = "" if awaited is None else awaited.method
        key = (*((each.f_code, each.f_lineno) for each in users or frames), method)
        place = self.found.get(key)
        if place is None:
            if len(self.found) >= MAX_PLACES:
                self.unread = True
                return False
            place = self.found[key] = _Place(frames, name)
        place.count += 1
        if awaited is not None:
            place.awaited.setdefault(awaited[:2], []).append(awaited.number)
        agent = next(filter(None, map(_agent_of, frames)), None)
        if agent is not None:
            place.agents[agent._number] = agent
        return True


def _plain(frame: FrameType) -> list[Any]:
    """File, line, name, whether it is a user's, and the agent whose code it is."""
    code, of_user = frame.f_code, _is_users(frame)
    agent = _agent_of(frame)
    whose = "" if agent is None else _title(agent)
    return [code.co_filename, frame.f_lineno, code.co_qualname, of_user, whose]


def _is_users(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIBRARIES


def _agent_of(frame: FrameType) -> Agent | None:
    """The agent whose method it is, written by a user; None if it is none's, or one being made."""
    if frame.f_code.co_varnames[:1] != ("self",) or not _is_users(frame):
        return None
    agent = frame.f_locals.get("self")
    return agent if isinstance(agent, Agent) and "_number" in vars(agent) else None


def _title(agent: Agent) -> str:
    return f"{type(agent).__name__} {agent._env.base_url}{agent._number}"


def _awaited_in(frame: FrameType) -> _Awaited | None:
    """For the answer of what a frame of this package waits."""
    code = frame.f_code
    if code is Network._call_there.__code__:
        local = frame.f_locals
        url, _, number = str(local.get("address")).rpartition("/")
        return _Awaited(str(local.get("method")), f"{url}/", number)
    if code is Rounds._wait.__code__:
        return _awaited_by(frame.f_locals.get("call"))
    return None


def _awaited_by(call: Any) -> _Awaited:
    number, method = call.request[3:5]
    return _Awaited(method, call.url or "", str(number))


# ---- tasks


def _tasks() -> Iterator[trio.lowlevel.Task]:
    """The tasks of this thread's loop that wait; none if it has no loop."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return
    running = _running_task()
    left = [] if root is None else [root]
    while left:
        task = left.pop()
        if task is not running:
            yield task
        for nursery in reversed(task.child_nurseries):
            left += nursery.child_tasks


def _running_task() -> trio.lowlevel.Task | None:
    try:
        return trio.lowlevel.current_task()
    except RuntimeError:
        return None


def _running(frame: FrameType | None) -> list[FrameType] | None:
    """The frames of the task that runs now, from its outermost one on; None if all wait."""
    if _running_task() is None:
        return None
    frames = []
    while frame is not None and frame.f_globals.get("__name__") != "trio._core._run":
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _chain(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits; of one that runs, the outermost alone."""
    while awaited is not None:
        match awaited:
            case CoroutineType():
                frame, awaited = awaited.cr_frame, awaited.cr_await
            case GeneratorType():
                frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
            case AsyncGeneratorType():
                frame, awaited = awaited.ag_frame, awaited.ag_await
            case _:  # the iterator of one of these, which does not say of which
                kinds = (CoroutineType, GeneratorType, AsyncGeneratorType)
                inner = (each for each in gc.get_referents(awaited) if isinstance(each, kinds))
                awaited = next(inner, None)
                continue
        if frame is not None:
            yield frame
            driven = _DRIVEN.get(frame.f_code)
            if driven is not None:
                yield from _chain(driven(frame.f_locals))


def _driven_activity(local: Mapping[str, Any]) -> Any:
    """The coroutine of the activity that `Rounds._drive` lets run; None if there is none."""
    activity = local.get("activity")
    if activity is None or activity.over or activity.task or activity in local["self"]._parked:
        return None
    return activity.work


# Code that drives a coroutine, and which one.
_DRIVEN: dict[CodeType, Callable[[Mapping[str, Any]], Any]] = {
    watch.__code__: lambda local: local.get("work"),
    Rounds._drive.__code__: _driven_activity,
    Rounds._keep.__code__: lambda local: local["activity"].work,
}


# ---- threads


def _other_threads() -> Iterator[tuple[str, list[FrameType]]]:
    """Names and frames of the threads other than this one."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident == threading.get_ident():
            continue
        frames: list[FrameType] = []
        inner: FrameType | None = frame
        while inner is not None:
            frames.append(inner)
            inner = inner.f_back
        yield names.get(ident, f"thread {ident}"), frames[:MAX_FRAMES][::-1]
