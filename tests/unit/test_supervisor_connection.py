"""The end of a private supervisor, with a socket in place of its processes."""

from __future__ import annotations

import signal
import socket
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from creamas_sc.supervisor_client import connection
from creamas_sc.supervisor_client.launcher import Launched


class FakeKeeper:
    """Notes what is done to it."""

    pid = 0  # of no process

    def __init__(self) -> None:
        self.acts: list[str] = []

    def send_signal(self, number: signal.Signals) -> None:
        self.acts.append(number.name)

    def kill(self) -> None:
        self.acts.append("kill")

    def wait(self) -> None:
        self.acts.append("wait")

    def poll(self) -> None:
        self.acts.append("poll")


@pytest.mark.parametrize(
    ("seconds", "acts"),
    [
        (0.5, ["SIGCONT", "wait"]),
        (connection.END_SECONDS + 5.5, ["SIGCONT", "kill", "wait"]),
        (60.0, ["SIGCONT", "kill", "poll"]),
    ],
)
async def test_a_close_waits_for_all_processes_within_a_bound(
    seconds: float, acts: list[str], autojump_clock: MockClock
) -> None:
    ours, theirs = socket.socketpair()
    unused, _ = ends = socket.socketpair()
    keeper = FakeKeeper()
    began = trio.current_time()

    async def end() -> None:
        await trio.sleep(seconds)
        theirs.close()

    with theirs, unused, ends[1]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            await connection._reap_keeper(Launched(unused, cast("Any", keeper), "", ours))
            took = trio.current_time() - began
            nursery.cancel_scope.cancel()
    assert keeper.acts == acts
    assert took == pytest.approx(min(seconds, connection.END_SECONDS + connection.KILL_SECONDS))
