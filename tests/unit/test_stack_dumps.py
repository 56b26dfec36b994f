"""Where a process's code is: its tasks, the agents in them, its threads, and one that hangs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import CreativeAgent, Environment, expose
from creamas_sc.mp import EnvManager
from creamas_sc.mp.stacks import _Awaited, _Places, answering_for
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.runtime.stack_dumps import MAX_FILE_BYTES, SIGNAL, answering, ask

BOUND_SECONDS = 20


class Waiter(CreativeAgent):
    """Waits in its act, one call deeper, until the test lets it go on."""

    go_on = trio.Event()

    @expose
    async def act(self) -> None:
        await self.hold()

    async def hold(self) -> None:
        await self.go_on.wait()


class Asker(Waiter):
    """Asks the first agent, which answers when the test lets it."""

    @expose
    async def act(self) -> Any:
        first = f"{self.env.base_url}1"
        if self.addr == first:
            return None
        return await self.env.network.call_agent(first, "judge", (), {})

    @expose
    async def judge(self) -> None:
        await self.hold()


class Looker(CreativeAgent):
    """Looks where it is."""

    seen: Any = None

    @expose
    async def act(self) -> None:
        type(self).seen = self.look()

    def look(self) -> Any:
        return own_report()


def own_report() -> Any:
    (answer,) = ask([os.getpid()], BOUND_SECONDS)
    assert answer.problem == ""
    return answer.report


@asynccontextmanager
async def acting(cls: type[CreativeAgent], n: int, calls: str) -> AsyncIterator[Environment]:
    """Agents in the middle of a step that all of them have begun."""
    Waiter.go_on = trio.Event()
    with trio.fail_after(BOUND_SECONDS), answering_for(lambda: {"address": "here"}):
        async with adopt_running_loop():
            env = Environment(("localhost", 0))
            env.calls = calls
            await env.open(EnvManager)
            for _ in range(n):
                cls(env)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(env.trigger_all)
                await trio.testing.wait_all_tasks_blocked(0.01)
                yield env
                Waiter.go_on.set()
            await env.close(as_coro=True)


def lines(place: Any) -> list[str]:
    """The names of the user's frames of a place."""
    return [name for _, _, name, of_user, _ in place["frames"] if of_user]


@pytest.mark.parametrize("calls", ["free", "rounds"])
async def test_agents_that_wait_are_one_place(calls: str) -> None:
    async with acting(Waiter, 7, calls) as env:
        report = own_report()
    (place,) = [place for place in report["places"] if "Waiter.hold" in lines(place)]
    assert lines(place) == ["Waiter.act", "Waiter.hold"]
    assert place["count"] == place["of_agents"] == 7
    assert place["agents"] == [f"Waiter {env.base_url}{number}" for number in range(1, 6)]
    assert place["waits"] == []
    files = {name: (file, line) for file, line, name, *_ in place["frames"]}
    assert files["Waiter.hold"] == (__file__, Waiter.hold.__code__.co_firstlineno + 1)
    assert report["about"] == {"address": "here"}
    assert report["running"] is not None  # this test
    assert report["own"]
    assert not report["unread"]


async def test_agents_that_wait_for_answers_in_rounds_have_no_tasks() -> None:
    async with acting(Asker, 4, "rounds") as env:
        report = own_report()
    asking, asked = sorted(report["places"][-2:], key=lambda place: not place["waits"])
    one = {"method": "judge", "environment": "", "calls": 3, "agents": 1, "number": "1"}
    assert asking["waits"] == [one]
    assert asking["agents"] == [f"Asker {env.base_url}{number}" for number in range(2, 5)]
    assert lines(asking) == ["Asker.act"]
    assert asked["agents"] == [f"Asker {env.base_url}1"]
    assert lines(asked) == ["Asker.judge", "Waiter.hold"]


def test_those_who_wait_for_agents_elsewhere_too_are_one_place_that_says_for_whom() -> None:
    places = _Places(float("inf"))
    frame = sys._getframe()
    for url, number in [("", "7"), ("tcp://b:1/", "3"), ("tcp://b:1/", "4"), ("tcp://b:1/", "3")]:
        assert places.add([frame], "", _Awaited("judge", url, number))
    assert places.add([frame], "", _Awaited("praise", "", "7"))
    judge, praise = [place.plain() for place in places.found.values()]
    assert judge["count"] == 4
    common = {"method": "judge"}
    assert judge["waits"] == [
        {**common, "environment": "tcp://b:1/", "calls": 3, "agents": 2, "number": "3"},
        {**common, "environment": "", "calls": 1, "agents": 1, "number": "7"},
    ]
    assert praise["waits"][0]["method"] == "praise"


async def test_calls_at_once_have_the_called_agents_code_too() -> None:
    async with acting(Asker, 2, "free") as env:
        report = own_report()
    (place,) = [place for place in report["places"] if "Asker.judge" in lines(place)]
    assert lines(place) == ["Asker.act", "Asker.judge", "Waiter.hold"]
    whose = [agent.rpartition("/")[2] for *_, of_user, agent in place["frames"] if of_user]
    assert whose == ["2", "1", "1"]
    assert place["agents"] == [f"Asker {env.base_url}2"]


@pytest.mark.parametrize("calls", ["free", "rounds"])
async def test_what_runs_is_shown_from_its_task_on(calls: str) -> None:
    async with acting(Looker, 1, calls):
        running = Looker.seen["running"]
    assert lines(running)[:3] == ["Looker.act", "Looker.look", "own_report"]
    assert not any("nursery" in name for _, _, name, *_ in running["frames"])


def test_threads_are_shown_by_name() -> None:
    held = threading.Event()
    thread = threading.Thread(target=held.wait, name="reads the web", args=(BOUND_SECONDS,))
    with answering_for(dict):
        thread.start()
        try:
            report = own_report()
        finally:
            held.set()
            thread.join()
    (found,) = [each for each in report["threads"] if each["name"] == "reads the web"]
    assert any(name.endswith("Event.wait") for _, _, name, *_ in found["frames"])
    assert report["running"] is None  # there is no loop


def test_a_report_that_fails_is_a_problem_and_nothing_else() -> None:
    def fail(frame: Any) -> dict[str, Any]:
        raise ValueError("odd")

    with answering(fail):
        (answer,) = ask([os.getpid()], BOUND_SECONDS)
    assert answer.problem == "the report failed: ValueError: odd"


def test_one_that_is_too_large_is_a_problem() -> None:
    with answering(lambda frame: {"much": "x" * (2 << 20)}):
        (answer,) = ask([os.getpid()], BOUND_SECONDS)
    assert "too large" in answer.problem


def test_the_file_is_emptied_before_it_grows() -> None:
    with answering(lambda frame: {"much": "x" * (1 << 19)}):
        for _ in range(20):
            (answer,) = ask([os.getpid()], BOUND_SECONDS)
            assert answer.problem == ""
        sizes = [os.stat(f"/proc/self/fd/{fd}").st_size for fd in memory_files()]
    assert max(sizes) < MAX_FILE_BYTES + (2 << 20)


def memory_files() -> list[str]:
    names = os.listdir("/proc/self/fd")
    paths = {name: f"/proc/self/fd/{name}" for name in names}
    return [n for n, p in paths.items() if os.path.exists(p) and "creamas" in os.readlink(p)]


def test_nothing_is_left_of_it() -> None:
    before = signal.getsignal(SIGNAL)
    with answering(lambda frame: {}):
        assert signal.getsignal(SIGNAL) is not before
    assert signal.getsignal(SIGNAL) is before
    (answer,) = ask([os.getpid()], BOUND_SECONDS)  # and the signal, if it came, harms nobody
    assert "it is only starting" in answer.problem


def test_without_a_descriptor_it_runs_and_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    with answering(lambda frame: {}):
        (answer,) = ask([os.getpid()], BOUND_SECONDS)
    assert "no descriptor left" in answer.problem


# ---- processes that cannot answer


HANGS = """
import itertools, sys
from creamas_sc.runtime.stack_dumps import answering

def in_c():
    print(flush=True)
    sum(itertools.repeat(1))  # C code that holds the interpreter

def in_python():
    print(flush=True)
    while True:
        pass

with answering(lambda frame: {"in": frame.f_code.co_name}):
    globals()[sys.argv[1]]()
"""


@contextmanager
def hanging(how: str) -> Iterator[int]:
    command = [sys.executable, "-c", HANGS, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_one_that_computes_in_python_answers() -> None:
    with hanging("in_python") as pid:
        (answer,) = ask([pid], BOUND_SECONDS)
    assert answer == ("running", {"in": "in_python"}, (), "")


def test_one_that_computes_in_c_shows_its_main_thread() -> None:
    with hanging("in_c") as pid:
        while True:
            (answer,) = ask([pid], 0.2)
            if answer.report is None:  # it may not have come to the C code
                break
    assert answer.state == "running"
    assert "not Python" in answer.problem
    assert answer.main_thread[0].endswith("(most recent call first):")
    assert answer.main_thread[1].endswith(" in in_c")


def test_one_that_is_stopped_is_not_asked() -> None:
    with hanging("in_python") as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        (answer,) = ask([pid], BOUND_SECONDS)
        assert (answer.state, answer.report) == ("stopped", None)
        assert "SIGSTOP" in answer.problem
        os.kill(pid, signal.SIGCONT)
        (answer,) = ask([pid], BOUND_SECONDS)
        assert answer.report == {"in": "in_python"}
    (answer,) = ask([pid], BOUND_SECONDS)
    assert (answer.state, answer.problem) == ("ended", "it has ended")
