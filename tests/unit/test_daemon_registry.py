"""The registry of a daemon's simulations, with lives of no length in place of processes."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from creamas_sc.errors import CallRefused, StartError, UnknownSimulation
from creamas_sc.runtime.log_files import BEGINS
from creamas_sc.supervisor_client.messages import ProcessOrder
from supervisor.daemon import managed_simulation, registry
from supervisor.daemon.managed_simulation import ManagedSimulation, State
from supervisor.daemon.registry import Registry
from supervisor.nodes.registry import NodeRegistry

ORDER: ProcessOrder = {"entry": "m:f", "spec": b"", "environ": {}, "cwd": "/", "path": []}


@asynccontextmanager
async def a_registry(log_folder: Path = Path(os.devnull, "logs")) -> AsyncIterator[Registry]:
    async with trio.open_nursery() as nursery:
        yield Registry(nursery, log_folder, NodeRegistry(nursery))
        nursery.cancel_scope.cancel()


def _end(self: ManagedSimulation) -> None:
    self.state = State.ENDED
    for event in (self.up, self.host_gone, self.ended):
        event.set()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host fails to start."""

    async def run(self: ManagedSimulation, timeout: float | None) -> None:
        self.cause = f"{self.name} did not start"
        _end(self)

    monkeypatch.setattr(managed_simulation.ManagedSimulation, "run", run)


@pytest.mark.usefixtures("failing")
async def test_the_last_hundred_that_ended_are_kept() -> None:
    async with a_registry() as there:
        for number in range(registry.KEPT_RECORDS + 1):
            with pytest.raises(StartError, match=f"s{number} did not start"):
                await there.create(f"s{number}", ORDER, {})
        kept = await there.ls(all=True)
        assert [each["name"] for each in kept] == [f"s{n}" for n in range(1, 101)]
        assert await there.ls() == []
        assert (await there.inspect("s1"))["cause"] == "s1 did not start"
        with pytest.raises(UnknownSimulation, match="no simulation 's0': there is none"):
            await there.inspect("s0")
        with pytest.raises(UnknownSimulation, match="simulation 's1' has ended: s1 did not start"):
            there.find("s1")
        status = await there.host_status("s0", 1)
        assert status["cause"] == "how it ended is no longer known"


@pytest.mark.usefixtures("failing")
async def test_the_log_of_a_name_says_where_each_simulation_begins(tmp_path: Path) -> None:
    async with a_registry(tmp_path / "logs") as there:
        for _ in range(2):
            with pytest.raises(StartError):
                await there.create("one", ORDER, {})
    lines = (tmp_path / "logs" / "one.log").read_text().splitlines()
    assert [json.loads(line)[BEGINS] for line in lines] == ["one", "one"]


@pytest.mark.usefixtures("failing")
async def test_what_is_kept_of_those_that_ended_is_bounded_in_bytes() -> None:
    largest = registry.MAX_RECORD_BYTES
    async with a_registry() as there:

        async def fail(name: str, order: ProcessOrder) -> None:
            with pytest.raises(StartError, match=f"{name} did not start"):
                await there.create(name, order, {})

        for number in range(3):
            await fail(f"huge{number}", {**ORDER, "environ": {"A": "x" * largest}})
            await fail(f"long{number}", {**ORDER, "path": ["x" * largest, "y"]})
        assert len(await there.ls(all=True)) == 6
        for name in ("huge0", "long0"):
            kept = await there.inspect(name)
            assert (kept["environ"], kept["path"]) == ({}, [])
            assert kept["cause"] == f"{name} did not start"
        fit = registry.KEPT_BYTES // largest
        for number in range(fit + 1):
            await fail(f"s{number}", {**ORDER, "environ": {"A": "x" * (largest - 1)}})
        names = [each["name"] for each in await there.ls(all=True)]
        assert names == [f"s{number}" for number in range(1, fit + 1)]
        assert len((await there.inspect(f"s{fit}"))["environ"]["A"]) == largest - 1


async def test_one_that_breaks_inside_the_supervisor_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(self: ManagedSimulation, timeout: float | None) -> None:
        if self.name == "good":
            self.up.set()
            await trio.sleep_forever()
        try:
            async with trio.open_nursery():
                raise ZeroDivisionError("oops")
        finally:
            _end(self)

    monkeypatch.setattr(managed_simulation.ManagedSimulation, "run", run)
    async with a_registry() as there:
        await there.create("good", ORDER, {})
        with pytest.raises(StartError, match="an error inside the supervisor: Zero"):
            await there.create("bad", ORDER, {})
        await wait_all_tasks_blocked()
        assert [each["name"] for each in await there.ls()] == ["good"]
        cause = (await there.inspect("bad"))["cause"]
        assert cause == "an error inside the supervisor: ZeroDivisionError('oops')"
    assert "simulation bad broke inside the supervisor" in caplog.text


@pytest.mark.usefixtures("failing")
async def test_nothing_is_created_once_all_are_closed() -> None:
    async with a_registry() as there:
        closed: list[Any] = await there.close_all()
        assert closed == []
        with pytest.raises(CallRefused, match="the daemon is stopping"):
            await there.create("late", ORDER, {})


async def test_only_what_its_creator_made_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(self: ManagedSimulation, timeout: float | None) -> None:
        self.up.set()
        await self.host_gone.wait()
        _end(self)

    async def kill(self: ManagedSimulation, why: str) -> None:
        self.cause = why
        self.host_gone.set()
        await self.ended.wait()

    monkeypatch.setattr(managed_simulation.ManagedSimulation, "run", run)
    monkeypatch.setattr(managed_simulation.ManagedSimulation, "kill", kill)
    async with a_registry() as there:
        await there.create("one", ORDER, {}, None, "mine")
        await there.create("two", ORDER, {})
        for name, token in (("one", "other"), ("two", ""), ("three", "mine"), (["one"], "mine")):
            await there.undo_create(name, token)  # type: ignore[arg-type]
        assert [each.name for each in map(there.find, ("one", "two"))] == ["one", "two"]
        await there.undo_create("one", "mine")
        with pytest.raises(UnknownSimulation, match="has ended: its creation was cancelled"):
            there.find("one")
