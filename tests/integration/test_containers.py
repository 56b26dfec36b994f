"""Single environments with a manager: here, in a script, and in processes under handles."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio

from creamas_sc import Environment, run
from creamas_sc.errors import ConnectionLost, StartError
from creamas_sc.mp import EnvManager, spawn_containers, start
from tests.support.agents import Manager, SavingEnvironment
from tests.support.programs import running_script

BOUND_SECONDS = 20
ANY_PORT = ("localhost", 0)

SCRIPT = """
import random, sys
from creamas_sc import Environment
from creamas_sc.mp import EnvManager, spawn_container

class Printing(Environment):
    async def open(self, make_manager=None):
        await super().open(make_manager)
        print("listens", self.base_url, random.random(), flush=True)

    def save_info(self, folder):
        print("saved in", folder, flush=True)

spawn_container(("localhost", 0), Printing, EnvManager, 3, log_folder=sys.argv[1])
print("went on", flush=True)
"""


async def ask_to_stop(address: str) -> None:
    """As another script would: through another environment."""
    env = await Environment.create(ANY_PORT, as_coro=True)
    try:
        manager = await env.connect(address, timeout=5)
        agent, addr = await manager.spawn("tests.support.agents:Echo")
        assert await agent.evaluate((1, 2)) == (1, 2)
        assert await manager.get_agents() == [addr]
        await manager.stop()
    finally:
        await env.close(as_coro=True)


# ---- spawn_containers


def test_containers_that_are_waited_for_and_stopped(tmp_path: Path) -> None:
    params = [{"log_folder": str(tmp_path)}, {}]
    containers = spawn_containers([ANY_PORT] * 2, SavingEnvironment, params, Manager)
    one, other = containers
    assert os.getpid() not in (one.pid, other.pid)
    assert one.running
    assert not one.wait(timeout=0)

    run(ask_to_stop(one.address))
    assert one.wait(timeout=BOUND_SECONDS)
    assert not one.running
    assert (tmp_path / f"saved-{one.pid}").exists()
    assert other.running

    report = containers.stop()
    assert [slave.pid for slave in report] == [one.pid, other.pid]
    assert [slave.exit_code for slave in report] == [0, 0]
    assert (report[0].ended_by, report[1].ended_by) == ("gone", "request")
    assert report[1].graceful
    assert other.wait(timeout=0)
    assert not other.running
    assert [slave.pid for slave in containers.stop()] == []  # a second call is not an error
    with pytest.raises(ConnectionLost):
        run(_use(other.address))


def test_containers_in_a_block_end_with_it() -> None:
    def block() -> None:
        with spawn_containers([ANY_PORT], Environment, None, Manager) as containers:
            seen.extend(containers)
            run(_use(containers[0].address))
            raise ZeroDivisionError

    seen: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        block()
    assert not seen[0].running
    assert not Path(f"/proc/{seen[0].pid}").exists()


async def _use(address: str) -> None:
    env = await Environment.create(ANY_PORT, as_coro=True)
    try:
        manager = await env.connect(address)
        assert await manager.pid() != os.getpid()
    finally:
        await env.close(as_coro=True)


def test_containers_come_up_all_or_none() -> None:
    with pytest.raises(ValueError, match="1 items for 2"):
        spawn_containers([ANY_PORT] * 2, Environment, [{}])
    with pytest.raises(StartError, match="no_such_option"):
        spawn_containers([ANY_PORT] * 2, Environment, [{}, {"no_such_option": 1}])


# ---- spawn_container


def test_a_container_of_a_script_runs_until_its_manager_is_told_to_stop(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with running_script(script, str(tmp_path)) as under_way:
        _, url, number = under_way.read_until("listens").split()
        run(ask_to_stop(f"{url}0"))
        code, out, err = under_way.finish()
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"saved in {tmp_path}", "went on"]
    assert 0 <= float(number) < 1


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_ctrl_c_in_a_container_of_a_script(group: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with running_script(script, str(tmp_path)) as under_way:
        under_way.read_until("listens")
        under_way.signal(signal.SIGINT, group=group)
        code, out, err = under_way.finish(seconds=5)
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"saved in {tmp_path}", "went on"]


# ---- start


class Noting(Environment):
    """Notes what it saved."""

    saved: ClassVar[list[str | None]] = []

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        self.saved.append(folder)


class Announced(EnvManager):
    """The manager last made, and that there is one."""

    made = threading.Event()
    address = ""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        type(self).address = self.addr
        self.made.set()


def test_start_under_trio() -> None:
    async def main() -> None:
        with trio.fail_after(BOUND_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start, ANY_PORT, Noting, Announced)
                await trio.to_thread.run_sync(Announced.made.wait, BOUND_SECONDS)
                await ask_to_stop(Announced.address)

    _start(lambda: trio.run(main))


def test_start_under_asyncio() -> None:
    async def main() -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            started = asyncio.ensure_future(start(ANY_PORT, Noting, Announced))
            await asyncio.to_thread(Announced.made.wait, BOUND_SECONDS)
            await ask_to_stop(Announced.address)
            await started

    _start(lambda: asyncio.run(main()))


def test_a_start_that_is_cancelled_closes() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, ANY_PORT, Noting, Announced)
            await trio.to_thread.run_sync(Announced.made.wait, BOUND_SECONDS)
            nursery.cancel_scope.cancel()

    _start(lambda: trio.run(main))


def test_a_start_whose_manager_fails_closes() -> None:
    class Fails(EnvManager):
        def __init__(self, environment: Environment) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _start(lambda: run(start(ANY_PORT, Noting, Fails)))
    assert Noting.saved == [None]


def _start(go: Callable[[], object]) -> None:
    Announced.made.clear()
    Noting.saved.clear()
    go()
    assert Noting.saved == [None]
