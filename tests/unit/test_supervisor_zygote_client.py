"""Requests to the zygote, with the test in its place."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisor.tree import linux
from supervisor.tree.zygote_client import Process, ZygoteClient, open_zygote
from tests.support.programs import run_code

MANY = 50


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that holds a few requests at a time: the supervisor's end, the zygote's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least
    with ours, theirs:
        yield ours, theirs


async def fork_and_fail(zygote: ZygoteClient, name: str, errors: list[str]) -> None:
    with pytest.raises(OSError, match=r"zygote|not today") as caught:
        await zygote.fork(Process(name), "uid", 0)
    errors.append(str(caught.value))


def refuse(theirs: socket.socket) -> None:
    data, fds, _, _ = socket.recv_fds(theirs, 1 << 14, 4, socket.MSG_DONTWAIT)
    for fd in fds:
        os.close(fd)
    theirs.send(json.dumps({"serial": json.loads(data)["serial"], "error": "not today"}).encode())


def answer_with(theirs: socket.socket, pid: int) -> None:
    data, fds, _, _ = socket.recv_fds(theirs, 1 << 14, 4, socket.MSG_DONTWAIT)
    pidfd = os.pidfd_open(pid)
    answer = json.dumps({"serial": json.loads(data)["serial"], "pid": pid}).encode()
    socket.send_fds(theirs, [answer], [pidfd])
    for fd in (*fds, pidfd):
        os.close(fd)


async def test_requests_beyond_what_the_socket_holds_wait_for_each_other(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    errors: list[str] = []
    async with open_zygote(ends[0]) as zygote, trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(fork_and_fail, zygote, f"actor-{number}", errors)
        await wait_all_tasks_blocked()
        assert len(zygote._waiting) < MANY
        for _ in range(MANY):
            refuse(ends[1])
            await wait_all_tasks_blocked()
    assert sorted(errors) == sorted(
        f"[Errno 11] no process for actor-{number}: not today" for number in range(MANY)
    )
    assert zygote._waiting == {}


async def test_a_zygote_that_neither_answers_nor_reads(
    ends: tuple[socket.socket, socket.socket], autojump_clock: MockClock
) -> None:
    errors: list[str] = []
    async with open_zygote(ends[0]) as zygote, trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(fork_and_fail, zygote, f"actor-{number}", errors)
    assert errors == ["the zygote did not answer in 5 s"] * MANY
    assert len(zygote._waiting) < MANY  # what was not sent is forgotten


async def test_a_message_that_comes_with_the_end() -> None:
    for _ in range(20):  # trio has tasks that can go on at the same time do so in any order
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            async with open_zygote(ours):
                await wait_all_tasks_blocked()
                theirs.send(json.dumps({"ended": 1, "status": 0}).encode())
                await trio.lowlevel.checkpoint()


async def test_a_fork_that_is_cancelled_ends_its_process(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    scope, ended = trio.CancelScope(), trio.Event()

    async def give_up(zygote: ZygoteClient) -> None:
        with scope:
            await zygote.fork(Process("actor"), "uid", 0)
        ended.set()

    with trio.fail_after(10):
        async with open_zygote(ends[0]) as zygote, trio.open_nursery() as nursery:
            nursery.start_soon(give_up, zygote)
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            assert not ended.is_set()
            with subprocess.Popen(["sleep", "60"]) as process:
                answer_with(ends[1], process.pid)
                await ended.wait()
                assert process.wait(0) == -signal.SIGKILL


CHURN = """
import resource, sys
from supervisor.tree import linux

def churn():
    for _ in range(20):
        first = bytearray(3 << 20)
        second = bytes(first)
        del first, second

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if "keep" in sys.argv:
    linux.keep_freed_memory()
churn()
before = faults()
churn()
print(faults() - before)
"""


def test_freed_memory_is_kept() -> None:
    """What came and went once does so again without a page fault for each of its pages."""
    faults = []
    for how in ("leave", "keep"):
        faults.append(int(run_code(CHURN, how).stdout))
    left, kept = faults
    assert kept < 1000 < left


def test_a_stopped_process_that_ends_before_it_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    monkeypatch.setattr(linux, "_stat", lambda pid: [b"T"])
    assert not linux.wake(process.pid)


SWEEP = """
import os, subprocess, time
from supervisor.tree import linux

ours, theirs = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
kill = os.kill

def refuse(pid, number):
    if pid == theirs.pid:
        raise PermissionError(1, "Operation not permitted")
    kill(pid, number)

os.kill = refuse
began = time.monotonic()
print(linux.sweep(), linux.children() == [theirs.pid], time.monotonic() - began < 2)
os.kill = kill
print(linux.sweep(), linux.children())
"""


def test_children_that_are_another_users_by_now_are_left() -> None:
    """``sudo``, say, of which a slave that is lost leaves one behind."""
    assert run_code(SWEEP).stdout.splitlines() == ["True True True", "True []"]
