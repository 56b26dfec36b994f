"""The end of a host, from any side and during any work: reported, complete, within its bounds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from creamas_sc import MultiEnvironment
from creamas_sc.errors import AgentError, CreamasError, HostLost, StartError
from creamas_sc.reports import StopReport
from tests.support.hosting import ANY_PORT, Client, hosting, spec, stop_payload
from tests.support.processes import is_stopped
from tests.support.values import Stranger

pytestmark = pytest.mark.usefixtures("shared_supervisor")

CLOSE_SECONDS = 1.0
HOST_MARGIN_SECONDS = 3.0


class Saver(MultiEnvironment):
    """Saves in the way that ``how`` says."""

    def __init__(self, *args: Any, how: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.how = how

    async def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        if self.how == "slow":
            await trio.sleep(3600)
        if self.how == "raises":
            raise OSError("the disk is full")
        if self.how == "exits":
            raise SystemExit(3)
        if self.how == "stranger":
            return Stranger()
        if folder is not None:
            Path(folder, "saved").write_text("here")
        return {"folder": folder}


class OwnClose(Saver):
    """Closes in its own way."""

    def close(self, folder: str | None = None, as_coro: bool = False) -> Any:
        if self.how == "forgets":
            return None
        if self.how == "interrupt":
            raise KeyboardInterrupt
        return self._own(folder)

    async def _own(self, folder: str | None) -> Any:
        if self.how == "endless":
            await trio.sleep_forever()
        return await super().close(folder=folder, as_coro=True)


class Stubborn(MultiEnvironment):
    """Whose methods will not be cancelled."""

    seconds = 1.5

    async def is_ready(self) -> bool:
        with trio.CancelScope(shield=True):
            await trio.sleep(self.seconds)
        return True


class Forever(Stubborn):
    """... nor end."""

    seconds = 3600


def saver(how: str = "", cls: str = "Saver") -> Any:
    return spec(menv_cls=f"{__name__}:{cls}", env_kwargs={"how": how})


async def _expect_end(client: Client, *call: Any) -> None:
    with pytest.raises(CreamasError):
        await client(*call)


async def test_the_client_that_closes_gets_its_report(tmp_path: Path) -> None:
    async with hosting(saver()) as host, host.client() as client, host.client() as other:
        addrs = await client("get_addrs")
        began = time.monotonic()
        report = await client("close", str(tmp_path))
        assert time.monotonic() - began < CLOSE_SECONDS
        assert type(report) is StopReport
        assert [slave.address for slave in report] == addrs
        assert report.graceful
        assert report.saved == {"folder": str(tmp_path)}
        assert (tmp_path / "saved").exists()
        await host.ended.wait()
        assert host.outcome == report
        await other.connection.closed.wait()


async def test_a_host_stops_at_the_supervisors_request(tmp_path: Path) -> None:
    async with hosting(saver()) as host, host.client() as client:
        host.control.ask_stop()
        await host.ended.wait()
        assert host.outcome is not None
        assert host.outcome.graceful
        assert len(host.outcome) == 2
        await client.connection.closed.wait()
    async with hosting(saver()) as host:
        host.control.ask_stop(stop_payload(str(tmp_path), 5.0))
        await host.ended.wait()
        assert host.outcome is not None
        assert host.outcome.saved == {"folder": str(tmp_path)}


async def test_a_close_in_the_middle_of_steps() -> None:
    async with hosting() as host, host.client() as client, host.client() as other:
        await client("spawn", "tests.support.agents:Sleeper")
        await client("start_steps")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_end, other, "trigger_all")
            nursery.start_soon(_expect_end, other, "wait_slaves", -1, True)
            while not await client("get_in_step"):
                await trio.lowlevel.checkpoint()
            began = time.monotonic()
            report = await client("close")
        assert time.monotonic() - began < CLOSE_SECONDS
        assert report.graceful
        await host.ended.wait()


async def test_a_pending_call_fails_when_the_simulation_is_closed() -> None:
    async with hosting() as host, host.client() as client, host.client() as other:
        _, address = await client("spawn", "tests.support.agents:Sleeper")

        async def sleep() -> None:
            with pytest.raises(HostLost, match="'sim' was closed"):
                await other.call_agent(address, "act", (), {})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await client("close")


async def test_a_close_while_slaves_are_starting() -> None:
    async with hosting() as host, host.client() as client:

        async def start() -> None:
            with pytest.raises((StartError, HostLost)):
                await client("spawn_slaves", [ANY_PORT] * 3, "creamas_sc:Environment",
                             "creamas_sc:EnvManager")  # fmt: skip

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.testing.wait_all_tasks_blocked(0.005)
            with trio.fail_after(3):
                report = await client("close")
        assert len(report) == 2
        await host.ended.wait()


async def test_two_closes_and_a_request_at_once() -> None:
    async with hosting(saver()) as host, host.client() as client, host.client() as other:
        reports: list[StopReport] = []

        async def close(who: Client) -> None:
            reports.append(await who("close"))

        async with trio.open_nursery() as nursery:
            for who in (client, other, client):
                nursery.start_soon(close, who)
            host.control.ask_stop()
        await host.ended.wait()
        assert len(reports) == 3
        assert reports[0] == reports[1] == reports[2] == host.outcome


async def test_a_close_goes_on_without_the_client_who_asked() -> None:
    async with hosting(saver("slow")) as host, host.client() as client, host.client() as other:
        async with trio.open_nursery() as nursery:
            number, _ = await other("next_events")
            nursery.start_soon(_expect_end, client, "close")
            await other("next_events", number)
            client.connection.abort()
        began = time.monotonic()
        host.control.ask_stop(stop_payload(None, 0.1))  # it would save for an hour
        await host.ended.wait()
        assert time.monotonic() - began < HOST_MARGIN_SECONDS
        assert host.outcome is not None
        assert host.outcome.graceful


@pytest.mark.parametrize("how", ["raises", "exits"])
async def test_saving_that_fails_is_told_and_ends_nothing_else(how: str) -> None:
    text = "the disk is full" if how == "raises" else "SystemExit"
    async with hosting(saver(how)) as host, host.client() as client:
        with pytest.raises(AgentError, match=text):
            await client("close")
        await host.ended.wait()
        assert host.outcome is not None
        assert host.outcome.graceful
        assert text in host.outcome.errors[0]


async def test_the_result_of_save_info_need_not_be_encodable() -> None:
    async with hosting(saver("stranger")) as host:
        host.control.ask_stop()
        await host.ended.wait()
        assert host.outcome is not None
        assert len(host.outcome) == 2
        assert host.outcome.saved is None
        assert "cannot carry tests.support.values.Stranger" in host.outcome.errors[0]
    async with hosting(saver("stranger")) as host, host.client() as client:
        assert len(await client("close")) == 2


@pytest.mark.parametrize("how", ["", "forgets", "interrupt", "endless"])
async def test_a_close_overridden_by_the_user(how: str) -> None:
    async with hosting(saver(how, "OwnClose")) as host:
        began = time.monotonic()
        host.control.ask_stop(stop_payload(None, 0.3))
        await host.ended.wait()
        assert time.monotonic() - began < HOST_MARGIN_SECONDS
        assert host.outcome is not None
        assert [slave.graceful for slave in host.outcome] == [True, True]
        assert bool(host.outcome.errors) == (how == "interrupt")


async def test_slaves_that_do_not_answer_are_killed_at_close() -> None:
    async with hosting() as host, host.client() as client, host.client() as other:
        first = (await client("get_addrs"))[0]
        pid = await client.call_agent(first, "pid", (), {})
        await client("spawn", "tests.support.agents:Busy", "stopped", addr=first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_end, other, "trigger_all")
            while not is_stopped(pid):  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
            began = time.monotonic()
            host.control.ask_stop(stop_payload(None, 0.2))
            await host.ended.wait()
        assert time.monotonic() - began < HOST_MARGIN_SECONDS
        assert host.outcome is not None
        assert [slave.graceful for slave in host.outcome] == [False, True]


async def test_a_call_that_will_not_be_cancelled_does_not_keep_the_report() -> None:
    order = spec(menv_cls=f"{__name__}:Stubborn")
    async with hosting(order) as host, host.client() as client, host.client() as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_end, other, "is_ready")
            await trio.testing.wait_all_tasks_blocked(0.02)
            began = time.monotonic()
            assert (await client("close")).graceful
            assert time.monotonic() - began < CLOSE_SECONDS


async def test_a_host_stops_when_its_manager_stops() -> None:
    async with hosting() as host, host.client() as client:
        manager = await client("connect", f"{(await _address(client))}0")
        await manager.stop()
        await host.ended.wait()
        assert host.outcome is not None
        assert host.outcome.graceful


async def _address(client: Client) -> str:
    """Of the master environment, as its slaves know it."""
    await client("set_host_managers")
    manager = await client("connect", (await client("get_addrs"))[0])
    return str(await manager.host_manager()).rpartition("/")[0] + "/"


async def test_cancelled_it_leaves_nothing() -> None:
    async with hosting() as host, host.client() as client:
        pid = await client.call_agent((await client("get_addrs"))[0], "pid", (), {})
        with trio.fail_after(3):
            host.scope.cancel()
            await host.ended.wait()
        assert not Path(f"/proc/{pid}").exists()
