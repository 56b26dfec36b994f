"""Who reaps which children of an actor."""

from __future__ import annotations

import subprocess
import sys

import pytest

from supervisor.tree import adoption, linux

ACTOR = """
import os, pty, signal, subprocess
from supervisor.tree import adoption, linux

linux.become_subreaper()
adoption.note_children()

def wait_all_ended():
    while any(linux.zombie_status(pid) is None for pid in linux.children()):
        pass

own = {subprocess.Popen(["sh", "-c", f"exit {n}"]): n for n in range(2)}
forked = os.fork()
if forked == 0:
    os._exit(3)
at_terminal, fd = pty.fork()
if at_terminal == 0:
    os._exit(4)
spawned = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], os.environ)
wait_all_ended()
subprocess.run(["sh", "-c", "true & true & true &"], check=True)  # which waits for none of them
wait_all_ended()
print(len(linux.children()))
candidates = adoption.reap(set())
print(len(linux.children()), len(candidates))
adoption.reap(candidates)
print(len(linux.children()))
print([process.wait() for process in own])
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in (forked, at_terminal, spawned)])
adoption.reap(adoption.reap(set()))
print(adoption._own)
"""


def test_an_actor_reaps_what_it_adopted_and_nothing_else() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ACTOR], check=True, capture_output=True, text=True
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["8", "8 3", "5", "[0, 1]", "[3, 4, 5]", "set()"]


def test_a_child_that_another_thread_starts_meanwhile_is_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {-1}

    def ended(pid: int) -> None:
        own.add(-2)

    monkeypatch.setattr(adoption, "_own", own)
    monkeypatch.setattr(adoption, "_ended", ended)
    monkeypatch.setattr(linux, "children", list)
    adoption.reap(set())
    assert own == {-2}


def test_without_a_descriptor_to_look_with_nothing_is_reaped_or_forgotten() -> None:
    code = ACTOR.partition("own = {")[0] + (
        "import resource\n"
        "own = subprocess.Popen(['true'])\n"
        "adoption.reap(set())\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "print(adoption.reap({1}), adoption._own == {own.pid})\n"
        "print(own.wait())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("{1} True\n0\n", "")
