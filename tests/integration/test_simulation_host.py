"""A host with real slaves: what its clients do, and what becomes of it when slaves die."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import Artifact, Environment, MultiEnvironment, Proxy, expose
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadArguments,
    BadValue,
    ConnectionLost,
    DeadlineExceeded,
    LoadError,
    SlaveLost,
    StartError,
)
from creamas_sc.mp import StepReport
from creamas_sc.supervisor_client.spec import unpack
from tests.support.hosting import ANY_PORT, Client, ManagedSimulation, hosting, spec
from tests.support.values import Point

pytestmark = pytest.mark.usefixtures("shared_supervisor")

QUICK_STEPS = 10  # of some milliseconds each
TOLD_SECONDS = 1.0


class Society(MultiEnvironment):
    """A subclass with one more method, and a keyword."""

    def __init__(self, *args: Any, motto: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.motto = motto

    @expose
    async def count(self) -> tuple[str, int]:
        return self.motto, len(await self.get_agents(as_coro=True))


class Broken(MultiEnvironment):
    """Cannot be made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        raise SystemExit("out of order")


async def pid_of(client: Client, address: str) -> int:
    pid: int = await client.call_agent(address, "pid", (), {})
    return pid


async def test_a_simulation_through_its_host() -> None:
    async with hosting() as host, host.client() as client:
        addrs = await client("get_addrs")
        assert unpack(host.control.info) == {"addrs": addrs}
        assert len(addrs) == 2
        assert await client("wait_slaves", 5, check_ready=True)
        await client("set_host_managers")
        agent, address = await client("spawn", "tests.support.agents:Counter", 3)
        assert isinstance(agent, Proxy)
        assert agent.addr == address
        assert await agent.act() == 4
        spawned = await client("spawn_n", "tests.support.agents:Counter", 2, addr=addrs[1])
        agents = [address, *(addr for _, addr in spawned)]
        assert await client("get_agents") == agents
        assert await client("trigger_act", address) == 5
        assert await client("trigger_all") == [6, 1, 1]
        assert [a.obj for a in await client("get_artifacts", since=1)] == [5, 6, 1, 1]
        assert await client("create_connections", {agents[0]: [(agents[1], {"w": 1})]}) == [[True]]
        assert await client("get_connections", data=False) == [
            (agents[0], [agents[1]]), (agents[1], []), (agents[2], []),
        ]  # fmt: skip
        progress = await client("progress")
        assert (progress["slaves"], progress["agents"], progress["artifacts"]) == (2, 3, 5)
        assert (await host.describe())["addrs"] == addrs


async def test_calls_of_agents_travel_unopened() -> None:
    async with hosting() as host, host.client() as client:
        echo, address = await client("spawn", "tests.support.agents:Echo")
        for value in ((1, {2: b"x" * 100_000}), Point(1, 2), [Artifact("me", {3})], echo):
            assert await echo.evaluate(value) == value
        with pytest.raises(AgentError, match=r"ValueError in .*: odd") as caught:
            await echo.fail("odd")
        assert "in fail" in caught.value.traceback_text
        with pytest.raises(AgentError, match="Stranger"):
            await echo.give_stranger()
        sealed = client.codec.encode((("opened?",), {}))
        # The host could not decode this, nor does it try.
        with pytest.raises(BadArguments, match="evaluate"):
            await client.connection.call(address, "evaluate", client.codec.encode(((), {})))
        answer = await client.connection.call(address, "evaluate", sealed)
        assert client.codec.decode(answer) == "opened?"
        assert client.codec.decode(
            await client.connection.call(address, "", client.codec.encode(((), {})))
        ) == "tests.support.agents:Echo"  # fmt: skip


async def test_a_subclass_of_the_users() -> None:
    society = spec(menv_cls=f"{__name__}:Society", env_kwargs={"motto": "novelty"}, mgr_cls=None)
    async with hosting(society) as host, host.client() as client:
        await client("spawn_n", "tests.support.agents:Echo", 3)
        assert await client("call", "count") == ("novelty", 3)
        with pytest.raises(BadArguments, match="no manager"):
            await client("set_host_managers")


async def test_without_slaves_at_first() -> None:
    async with hosting(spec(slave_addrs=[])) as host, host.client() as client:
        assert unpack(host.control.info) == {"addrs": []}
        await client("spawn_slaves", [ANY_PORT], "creamas_sc:Environment", "creamas_sc:EnvManager")
        await client("spawn", "tests.support.agents:Counter")
        assert await client("trigger_all") == [1]
        report = await client("stop_slaves")
        assert report.graceful
        assert (await client("progress"))["slaves"] == 0
        with pytest.raises(BadValue, match="slave_kwargs has 0 items"):
            await client("spawn_slaves", [ANY_PORT], Environment, "creamas_sc:EnvManager", [])
        await client("spawn_slaves", [ANY_PORT], Environment, "creamas_sc:EnvManager")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"menv_cls": "tests.support.agents:Nothing"}, LoadError, "no 'Nothing'"),
        (
            {"menv_cls": "tests.support.agents:Echo"},
            LoadError,
            "not a subclass of MultiEnvironment",
        ),
        ({"mgr_cls": "tests.support.agents:Echo"}, LoadError, "Echo is not a subclass of Manager"),
        (
            {"env_cls": "tests.support.agents:Echo"},
            LoadError,
            "Echo is not a subclass of Environment",
        ),
        ({"menv_cls": f"{__name__}:Broken"}, SystemExit, "out of order"),
        ({"slave_env_cls": "tests.support.agents:Nothing"}, StartError, "no 'Nothing'"),
        ({"slave_kwargs": [{}]}, ValueError, "slave_kwargs has 1 items"),
        ({"restart": "always"}, BadValue, "'permanent' (it is started again"),
    ],
)
async def test_a_host_that_does_not_come_up_says_why(
    changes: dict[str, Any], error: type[BaseException], text: str
) -> None:
    async with hosting(spec(**changes), wait=False) as host:
        await host.ended.wait()
        assert isinstance(host.error, error)
        assert text in str(host.error)


# anyio's own, of a socket that it could not bind.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
async def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addr = ("127.0.0.1", taken.getsockname()[1])
        async with hosting(spec(addr=addr), wait=False) as host:
            await host.ended.wait()
            assert isinstance(host.error, StartError)
            assert "the port is taken" in str(host.error)


# ---- a simulation that steps by itself


async def test_loads_of_slaves_while_a_step_waits_for_a_stopped_one() -> None:
    async with hosting(spec(calls="free")) as host, host.client() as client:
        addrs = await client("get_addrs")
        for addr in addrs:
            await client("spawn_n", "tests.support.agents:Echo", 3, addr=addr)
        await client("trigger_all")
        loads = await client("process_loads")
        pids = [await pid_of(client, addr) for addr in addrs]
        assert [(each["address"], each["pid"]) for each in loads["slaves"]] == list(
            zip(addrs, pids, strict=True)
        )
        assert loads["host"]["pid"] == os.getpid()
        for each in loads["slaves"]:
            assert each["agents"] == 3
            assert each["memory_bytes"] > 1 << 20
            assert each["step_seconds"] > 0
            assert each["waited_seconds"] is None
        os.kill(pids[1], signal.SIGSTOP)
        try:
            await client("start_steps", 1)
            quick, stopped = loads["slaves"]
            while quick["waited_seconds"] is not None or (stopped["waited_seconds"] or 0) < 0.1:
                quick, stopped = (await client("process_loads"))["slaves"]
                await trio.sleep(0.01)
            assert quick["step_seconds"] < stopped["waited_seconds"]
            assert stopped["state"] == "stopped"
        finally:
            os.kill(pids[1], signal.SIGCONT)
        assert (await client("wait_steps"))["step"] == 1
        assert [each["waited_seconds"] for each in (await client("process_loads"))["slaves"]] == [
            None, None,
        ]  # fmt: skip


@pytest.mark.slow
async def test_a_polling_client_is_answered_at_once_during_steps() -> None:
    async with hosting() as host, host.client() as client:
        for addr in await client("get_addrs"):
            await client("spawn_n", "tests.support.agents:Echo", 500, addr=addr)
        await client("start_steps")
        for _ in range(20):
            await client("next_events", (await client("next_events"))[0])
            began_at = (await client("progress"))["step"]
            async with host.client() as other:
                progress = await other("progress")
            assert progress["step"] - began_at < QUICK_STEPS
        assert progress["state"] == "stepping"
        assert progress["acts_per_second"] > 0
        # Turns at the step lock are fair.
        before = (await client("progress"))["step"]
        for _ in range(5):
            await client("trigger_all")
        assert (await client("progress"))["step"] - before in range(4, 12)
        paused = await client("pause")
        assert paused["age"] == paused["step"]
        assert await client("get_in_step") is False


async def test_agents_that_fail_stop_the_steps() -> None:
    async with hosting() as host, host.client() as client:
        await client("spawn", "tests.support.agents:Raises", "value", "act")
        await client("spawn", "tests.support.agents:Counter")
        with pytest.raises(AgentErrors) as caught:
            await client("trigger_all")
        assert caught.value.results == [1]
        await client("start_steps", 2)
        progress = await client("wait_steps")
        assert (progress["state"], progress["step"]) == ("failed", 1)
        assert "raised in act" in progress["error"]
        await client("resume")
        assert (await client("wait_steps"))["step"] == 2


async def test_steps_in_a_limited_time() -> None:
    async with hosting() as host, host.client() as client:
        await client("spawn", "tests.support.agents:Sleeper")
        _, counter = await client("spawn", "tests.support.agents:Counter")
        await client("start_steps_within", 0.05, 3)
        progress = await client("wait_steps")
        assert (progress["state"], progress["step"], progress["overran"]) == ("idle", 3, 3)
        assert await client("trigger_act", counter) == 4
        for seconds, on_overrun in ((-1, "cancel"), (None, "cancel"), (1, "ignore"), (1, [1])):
            with pytest.raises(BadValue, match=r"seconds|on_overrun"):
                await client("start_steps_within", seconds, on_overrun=on_overrun)
        assert (await client("progress"))["state"] == "idle"


async def test_a_step_that_a_client_gives_up_is_cancelled_where_it_runs() -> None:
    async with hosting() as host, host.client() as client, host.client() as other:
        sleeper, address = await client("spawn", "tests.support.agents:Sleeper")
        payload = client.codec.encode(((), {}))
        with pytest.raises(DeadlineExceeded):
            await client.connection.call(None, "trigger_all", payload, timeout=0.1)
        assert await sleeper.was_cancelled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, client, "trigger_act", address)
            while not await other("get_in_step"):
                await trio.lowlevel.checkpoint()
            client.connection.abort()
        with trio.fail_after(TOLD_SECONDS):
            while await other("get_in_step"):
                await trio.lowlevel.checkpoint()


async def _expect_lost(client: Client, *call: Any) -> None:
    with pytest.raises(ConnectionLost):
        await client(*call)


# ---- the loss of a slave


async def test_a_lost_slave_is_reported_and_the_others_go_on() -> None:
    async with hosting() as host, host.client() as client:
        first, second = await client("get_addrs")
        for addr in (first, second):
            await client("spawn_n", "tests.support.agents:Counter", 2, addr=addr)
        await client("start_steps", 1000)
        number, _ = await client("next_events")
        pid = await pid_of(client, first)
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(TOLD_SECONDS):
            details = await _event(client, number, "slave_lost")
        progress = await client("wait_steps")
        assert (progress["state"], progress["step"], progress["error"]) == ("idle", 1000, "")
        assert (progress["slaves"], progress["agents"]) == (1, 2)
        assert details["address"] == first
        assert (details["pid"], details["exit_code"], details["signal"]) == (pid, None, 9)
        assert f"(pid {pid}) was killed by SIGKILL" in details["cause"]
        with pytest.raises(SlaveLost):
            await pid_of(client, first)
        report = await client("close")
        assert [slave.ended_by for slave in report] == ["gone", "request"]


async def test_a_step_that_does_not_repeat_itself_is_reported() -> None:
    async with hosting() as host, host.client() as client:
        first, second = await client("get_addrs")
        await client("set_calls", "rounds")
        for addr in (first, second):
            await client("spawn_n", "tests.support.agents:Counter", 2, addr=addr)
        await client("trigger_all")
        assert await client("get_last_step") == StepReport(True)
        progress = await client("progress")
        assert (progress["repeatable"], progress["why"]) == (True, [])
        number, _ = await client("next_events")
        pid = await pid_of(client, first)
        os.kill(pid, signal.SIGKILL)
        await client("start_steps", 10)
        with trio.fail_after(TOLD_SECONDS):
            details = await _event(client, number, "not_repeatable")
        assert f"(pid {pid}) was killed by SIGKILL" in details["why"][0]
        await client("wait_steps")
        assert await client("get_last_step") == StepReport(True)
        progress = await client("progress")
        assert (progress["repeatable"], progress["why"]) == (False, details["why"])


async def _event(client: Client, since: int, name: str) -> dict[str, Any]:
    while True:
        since, events = await client("next_events", since)
        for _, kind, details in events:
            if kind == name:
                return dict(details)


async def test_restart_all_ends_the_host_with_its_first_lost_slave() -> None:
    async with hosting(spec(restart="all")) as host, host.client() as client:
        first, second = await client("get_addrs")
        await client("spawn", "tests.support.agents:Sleeper", addr=second)
        number, _ = await client("next_events")
        pids = [await pid_of(client, addr) for addr in (first, second)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, client, "trigger_all")
            while not await client("get_in_step"):
                await trio.lowlevel.checkpoint()
            os.kill(pids[0], signal.SIGKILL)
            details = await _event(client, number, "closing")
            assert "was killed by SIGKILL" in details["cause"]
        with trio.fail_after(TOLD_SECONDS):
            await host.ended.wait()
        assert isinstance(host.error, SlaveLost)
        assert host.error.pid == pids[0]
        assert "SIGKILL; with restart='all' that ends the simulation" in str(host.error)
        await client.connection.closed.wait()


async def test_the_host_ends_when_its_supervisor_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hosting() as host:
        await _lose_supervisor(host)
        with trio.fail_after(3):
            await host.ended.wait()
        assert "the supervisor is gone" in str(host.error)


async def _lose_supervisor(host: ManagedSimulation) -> None:
    await host.supervisor.aclose()
    await host.line.aclose()
