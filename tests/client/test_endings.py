"""How calls and simulations end before their time, and what a client learns of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from creamas_sc.client import connect_sync
from creamas_sc.errors import ConnectionLost, DeadlineExceeded, HostLost
from tests.support import daemons
from tests.support.clients import (
    BOUND_SECONDS,
    SOCIETY,
    Named,
    connected,
    each_async_client,
    each_client,
    plain,
    studio,
)

SLEEPER = f"{SOCIETY}:Sleeper"


def when_asleep(name: str, addr: str, then: Any) -> threading.Thread:
    """Call ``then`` once the sleeper at ``addr`` sleeps; seen through another client."""

    def watch() -> None:
        with connect_sync(timeout=BOUND_SECONDS) as client, client.attach(name) as simulation:
            simulation.timeout = BOUND_SECONDS
            sleeper = simulation.connect(addr)
            while not sleeper.naps()[0]:
                simulation.next_events(0, timeout=0.01)
            then()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@each_client
async def test_a_host_that_is_killed(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        _, addr = await sim.spawn(SLEEPER)
        thread = when_asleep(sim.name, addr, lambda: os.kill(sim.pid, signal.SIGKILL))
        with pytest.raises(HostLost, match=rf"'{sim.name}' has ended: .*{sim.pid}.*SIGKILL") as hit:
            await sim.trigger_all()
        thread.join()
        assert hit.value.may_have_run
        assert not hit.value.expected
        with pytest.raises(HostLost, match="SIGKILL"):
            await sim.get_age()


@each_client
async def test_a_simulation_closed_by_another_client(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        _, addr = await sim.spawn(SLEEPER)

        def close() -> None:
            with connect_sync(timeout=BOUND_SECONDS) as other:
                assert other.close(sim.name).saved == ("saved", None)

        thread = when_asleep(sim.name, addr, close)
        with pytest.raises(HostLost, match="closed"):
            await sim.trigger_all()
        thread.join()
        with pytest.raises(HostLost, match=f"'{sim.name}' has ended: closed") as caught:
            await sim.get_age()
        assert caught.value.expected


@each_client
@pytest.mark.parametrize("method", ["close", "destroy"])
async def test_a_simulation_closed_through_its_attachment(
    kind: str, named: Named, tmp_path: Path, method: str
) -> None:
    async with studio(kind, named) as sim, connected(kind) as client:
        addrs = await sim.get_addrs()
        report = await getattr(sim, method)(str(tmp_path))
        assert [slave.address for slave in report] == addrs
        assert report.saved == ("saved", str(tmp_path))
        # Its host is gone, and the name is free.
        assert (await client.create(sim.name))["pid"] != sim.pid
        with pytest.raises(HostLost):
            await sim.get_age()


@each_client
async def test_a_relative_folder_is_where_the_client_is(
    kind: str, named: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with studio(kind, named) as sim:
        monkeypatch.chdir(tmp_path)
        report = await sim.close(folder="results")
        assert report.saved == ("saved", str(tmp_path / "results"))


def test_a_daemon_that_is_killed(named: Named, tmp_path: Path) -> None:
    with daemons.running(tmp_path, "another") as another:
        with connect_sync("another", timeout=BOUND_SECONDS) as client:
            client.create("sim")
            with client.attach("sim") as simulation:
                another.process.kill()
                with pytest.raises(HostLost, match=r"has ended|does not answer any more"):
                    keep_asking(simulation.get_age)
            with pytest.raises(ConnectionLost, match="the daemon 'another' is gone"):
                keep_asking(client.ls)


def keep_asking(ask: Callable[[], object]) -> None:
    while True:
        ask()


# ---- one call


@each_async_client
async def test_a_cancelled_call(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        sleeper, addr = await sim.spawn(SLEEPER)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sim.trigger_act, addr)
            while not (await sleeper.naps())[0]:
                await sim.next_events(0, timeout=0.01)
            tasks.cancel_scope.cancel()
        assert await sleeper.naps() == (1, 1)
        with anyio.move_on_after(0.1):
            await sleeper.act()
        assert await sleeper.naps() == (2, 2)


@each_client
async def test_a_deadline(kind: str, named: Named) -> None:
    async with studio(kind, named) as sim:
        sleeper, _ = await sim.spawn(SLEEPER)
        if kind == "sync":
            sim.plain.timeout = 0.1
            with pytest.raises(DeadlineExceeded) as caught:
                await sim.trigger_all()
            assert caught.value.acknowledged
        else:
            with pytest.raises(TimeoutError), anyio.fail_after(0.1):
                await sim.trigger_all()
        assert await sleeper.naps() == (1, 1)


def test_ctrl_c_in_a_call(daemon: object, named: Named) -> None:
    main = threading.main_thread().ident
    assert main is not None
    name = named()
    with connect_sync(timeout=BOUND_SECONDS) as client:
        client.create(name, slave_addrs=[("localhost", 0)])
        with client.attach(name) as simulation:
            sleeper, addr = simulation.spawn(SLEEPER)
            thread = when_asleep(name, addr, lambda: signal.pthread_kill(main, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                simulation.trigger_all()
            thread.join()
            # The call has ended, in the slave too; the same objects go on.
            assert sleeper.naps() == (1, 1)
            assert client.status()["pid"] == client.pid


@each_async_client
async def test_calls_at_once(kind: str, named: Named) -> None:
    """Calls of one client do not wait for each other, but steps do."""
    async with studio(kind, named) as sim:
        sleeper, _ = await sim.spawn(SLEEPER)
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await sim.get_age())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sim.trigger_all)
            async with anyio.create_task_group() as others:
                for _ in range(20):
                    others.start_soon(ask)
            while not (await sleeper.naps())[0]:
                await sim.next_events(0, timeout=0.01)
            tasks.cancel_scope.cancel()
        assert answers == [0] * 20
        assert await sleeper.naps() == (1, 1)
        assert plain(sim).name == sim.name
