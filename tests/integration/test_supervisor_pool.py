"""Start, stop and watch actors, seen from the script."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from creamas_sc.errors import CallRefused, CreamasError, StartError
from creamas_sc.supervisor_client.messages import ActorOrder
from tests.support.processes import children, family, open_pidfds, record_of, wait_gone
from tests.support.programs import ROOT
from tests.support.trees import BOUND_SECONDS, open_supervisor, order


async def test_an_ordinary_stop_needs_no_signal() -> None:
    async with open_supervisor() as supervisor:
        started = await supervisor.start(*(order(s, "obey", s.encode()) for s in "abcd"))
        assert [t["slot"] for t in started] == list("abcd")
        assert [t["info"] for t in started] == [b"a ready", b"b ready", b"c ready", b"d ready"]
        left = open_pidfds(t["pid"] for t in started)
        results = await supervisor.stop(list("abcd"))
        assert wait_gone(left, 0) == []
        for result, start in zip(results, started, strict=True):
            seconds = result.pop("seconds")
            assert 0 < seconds < 1
            assert result == {
                "slot": start["slot"],
                "pid": start["pid"],
                "exit_code": 0,
                "signal": None,
                "error": None,
                "traceback": "",
                "graceful": True,
                "ended_by": "request",
                "payload": b"now stopped",
            }
            event = await supervisor.wait_exited()
            assert (event["exit_code"], event["signal"], event["expected"]) == (0, None, True)


@pytest.mark.slow
async def test_many_actors_stop_gracefully_at_once() -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(*(order(str(n), "obey") for n in range(40)))
        results = await supervisor.stop(grace=BOUND_SECONDS)
        ends = {(r["exit_code"], r["graceful"], r["ended_by"]) for r in results}
        assert ends == {(0, True, "request")}


async def test_output_that_cannot_be_flushed_does_not_delay_the_end() -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(order("a", "replace_stdout"))
        (result,) = await supervisor.stop(grace=BOUND_SECONDS)
        assert (result["exit_code"], result["ended_by"]) == (1, "request")


async def test_the_end_of_the_connection_ends_the_whole_tree() -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(order("a", "obey"), order("b", "obey"))
        left = open_pidfds(family(supervisor.keeper.pid).values())
        results = await supervisor.stop()
        assert [(r["slot"], r["ended_by"]) for r in results] == [("a", "request"), ("b", "request")]
        await supervisor.connection.aclose()
        assert wait_gone(left, 1.0) == []
        assert supervisor.keeper.wait(1.0) == 0


# A tree takes longer to start than all of these stops.
STAGES = {
    "ignore_request": ("cancel", 0, None),
    "shield": ("term", None, signal.SIGTERM),
    "loop": ("term", None, signal.SIGTERM),
    "hold_gil": ("term", None, signal.SIGTERM),
    "ignore_sigterm": ("kill", None, signal.SIGKILL),
}


@pytest.mark.slow
async def test_each_stage_of_a_stop() -> None:
    async with open_supervisor() as supervisor:
        for entry, (ended_by, exit_code, number) in STAGES.items():
            await supervisor.start(order("a", entry))
            (result,) = await supervisor.stop(grace=0.1)
            how = result["ended_by"], result["exit_code"], result["signal"]
            assert how == (ended_by, exit_code, number), entry
            assert (result["graceful"], result["payload"]) == (False, None), entry
            spent = {"cancel": 0.1, "term": 0.1 + 0.3, "kill": 0.1 + 0.3 + 0.2}[ended_by]
            assert spent <= result["seconds"] < spent + 0.25, entry


async def test_stops_go_in_parallel_and_a_stopped_process_ends_too() -> None:
    async with open_supervisor() as supervisor:
        started = await supervisor.start(*(order(s, "obey") for s in "abcd"))
        for actor in started[:3]:
            os.kill(actor["pid"], signal.SIGSTOP)
        results = await supervisor.stop(grace=0.2)
        assert [r["ended_by"] for r in results] == ["kill", "kill", "kill", "request"]
        assert max(r["seconds"] for r in results) < 0.2 + 0.3 + 0.2 + 0.2


async def test_an_actor_has_its_own_place_and_nothing_of_the_zygotes(tmp_path: Path) -> None:
    async with open_supervisor(
        "creamas_sc.mp.slave_main", "creamas_sc.mp", "no_such_module"
    ) as supervisor:
        asked: ActorOrder = {
            **order("a", "tell_place"),
            "cwd": str(tmp_path),
            "environ": {"ONLY": "this"},
            "path": [str(ROOT), str(tmp_path)],
        }
        (started,) = await supervisor.start(asked)
        place = json.loads(started["info"])
        assert place["pid"] == started["pid"]
        assert place["cwd"] == str(tmp_path)
        tree = record_of(supervisor.keeper.pid)
        assert place["environ"] == {"ONLY": "this", "CREAMAS_TREE": tree}
        assert place["path"][:2] == [str(ROOT), str(tmp_path)]
        assert not any("tractor" in entry or "supervisor" in entry for entry in place["path"])
        assert not place["numpy"]
        # The socket to the supervisor, and what trio opens: two socket pairs and an epoll.
        own = [where.partition("[")[0] for fd, where in place["fds"].items() if int(fd) > 2]
        assert sorted(own) == ["anon_inode:", *["socket:"] * 5, "this listing"]
        assert "anon_inode:[eventpoll]" in place["fds"].values()


async def test_a_lost_actor_is_reported_at_once() -> None:
    async with open_supervisor() as supervisor:
        started = await supervisor.start(order("a", "obey"), order("b", "obey"))
        began = trio.current_time()
        os.kill(started[0]["pid"], signal.SIGKILL)
        event = await supervisor.wait_exited()
        assert trio.current_time() - began < 0.5
        assert (event["slot"], event["signal"], event["exit_code"]) == ("a", signal.SIGKILL, None)
        assert not event["expected"]
        results = await supervisor.stop()
        assert [(r["slot"], r["ended_by"]) for r in results] == [("a", "gone"), ("b", "request")]
        assert results[0]["signal"] == signal.SIGKILL


async def test_a_broken_message_ends_its_sender_alone() -> None:
    async with open_supervisor() as supervisor:
        for entry, number in (("cut_frame", signal.SIGKILL), ("send_garbage", signal.SIGTERM)):
            await supervisor.start(order("a", "obey"))
            # What a start has started may have ended before the start is answered.
            with suppress(StartError):
                await supervisor.start(order(entry, entry))
                event = await supervisor.wait_exited()
                assert (event["slot"], event["signal"], event["expected"]) == (
                    entry,
                    number,
                    False,
                )
            (result,) = await supervisor.stop(["a"])
            assert result["graceful"]
            assert (await supervisor.wait_exited())["slot"] == "a"


async def test_an_actors_end_is_reported_while_the_zygote_is_stopped() -> None:
    async with open_supervisor() as supervisor:
        (started,) = await supervisor.start(order("a", "obey"))
        zygote = family(supervisor.keeper.pid)["zygote"]
        os.kill(zygote, signal.SIGSTOP)
        os.kill(started["pid"], signal.SIGKILL)
        event = await supervisor.wait_exited()
        assert event["signal"] == signal.SIGKILL
        os.kill(zygote, signal.SIGCONT)


async def test_a_start_wakes_a_zygote_that_is_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(order("a", "obey"))
        os.kill(family(supervisor.keeper.pid)["zygote"], signal.SIGSTOP)
        await supervisor.start(order("b", "obey"), order("c", "obey"))
    assert (
        "the zygote, which forks all processes, was stopped: it was woken" in capfd.readouterr().err
    )


FAILS_LATER = [
    ("fail_later", b"", "RuntimeError: broke"),
    ("fail_later", b"undecodable", r"RuntimeError: no file \udcff"),
    ("return_text", b"", "TypeError: "),
]


@pytest.mark.long
async def test_programs_that_an_actor_abandoned_are_reaped() -> None:
    async with open_supervisor(seconds=30) as supervisor:
        (told,) = await supervisor.start(order("a", "abandon"))
        while children(told["pid"]):  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(0.1)


async def test_an_entry_that_fails_later_is_reported() -> None:
    async with open_supervisor() as supervisor:
        for entry, spec, error in FAILS_LATER:
            try:
                await supervisor.start(order(error, entry, spec))
            except StartError as refused:  # it failed before the start was answered
                assert error in str(refused)  # noqa: PT017
            else:
                event = await supervisor.wait_exited()
                assert event["slot"] == error
                assert event["error"].startswith(error)
                assert (event["exit_code"], event["expected"]) == (1, False)
                assert "Traceback" in event["traceback"]


async def test_an_entry_that_fails_while_stopping_is_in_the_report() -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(order("a", "fail_later", b"on stop"))
        (result,) = await supervisor.stop()
        assert result["error"] == "RuntimeError: broke"
        assert (result["graceful"], result["ended_by"], result["exit_code"]) == (
            False,
            "request",
            1,
        )


FAILED_STARTS = [
    ("fail_to_start", b"value", "ValueError: said why"),
    ("fail_to_start", b"exit", "SystemExit: said why"),
    ("fail_to_start", b"interrupt", "KeyboardInterrupt: said why"),
    ("no_such_entry", b"", "has no 'no_such_entry'"),
    ("die_starting", b"", "was killed by SIGKILL while starting"),
]


async def test_one_failed_actor_fails_the_whole_start() -> None:
    async with open_supervisor() as supervisor:
        for entry, spec, reason in FAILED_STARTS:
            with pytest.raises(StartError, match=reason) as refused:
                await supervisor.start(order("a", "obey"), order("b", entry, spec))
            assert "actor-b (pid " in str(refused.value)
            assert set(family(supervisor.keeper.pid)) == {"keeper", "zygote", "supervisor"}
            assert await supervisor.start(order("a", "obey"), order("b", "obey"))
            assert supervisor.exited == []
            assert len(await supervisor.stop()) == 2
            assert {(await supervisor.wait_exited())["slot"] for _ in "ab"} == {"a", "b"}


async def test_a_start_has_a_deadline_and_names_who_was_late() -> None:
    async with open_supervisor() as supervisor:
        with pytest.raises(StartError, match=r"not ready within 0.5 s: actor-b \(pid \d+\)$"):
            await supervisor.start(order("a", "obey"), order("b", "never_ready"), timeout=0.5)
        assert len(children(family(supervisor.keeper.pid)["zygote"])) == 1


async def test_a_cancelled_start_leaves_nothing() -> None:
    async with open_supervisor() as supervisor:
        with trio.move_on_after(0.3):
            await supervisor.start(order("a", "obey"), order("b", "never_ready"))
        # Waits for the slots of those that are still being ended.
        await supervisor.start(order("a", "obey"), order("b", "obey"))
        assert len(await supervisor.stop()) == 2


async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing() -> None:
    async with open_supervisor() as supervisor:
        for moment in range(0, 40, 2):
            with trio.move_on_after(moment / 1000):
                await supervisor.start(order("a", "obey"), order("b", "never_ready"))
        await supervisor.start(order("a", "obey"), order("b", "obey"))
        assert set(family(supervisor.keeper.pid)) == {
            "keeper",
            "zygote",
            "supervisor",
            "actor-a",
            "actor-b",
        }


async def test_bad_requests_are_refused_and_lose_nothing() -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(order("a", "obey"))
        with pytest.raises(StartError, match="slot a is taken"):
            await supervisor.start(order("b", "obey"), order("a", "obey"))
        with pytest.raises(StartError, match="slot c is taken"):
            await supervisor.start(order("c", "obey"), order("c", "obey"))
        with pytest.raises(CreamasError, match="no actor in slot x"):
            await supervisor.stop(["x"])
        with pytest.raises(CallRefused, match="no method fly"):
            await supervisor.call("fly")
        with pytest.raises(CreamasError, match="argument"):
            await supervisor.call("stop", 1, 2, 3, 4, 5)
        assert await supervisor.start() == []
        (result,) = await supervisor.stop()
        assert result["graceful"]
        assert await supervisor.stop() == []


async def test_sigterm_to_the_supervisor_ends_all_in_order() -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(order("a", "obey"))
        pids = family(supervisor.keeper.pid)
        left = open_pidfds(pids.values())
        os.kill(pids["supervisor"], signal.SIGTERM)
        assert (await supervisor.wait_exited())["exit_code"] == 0
        await supervisor.connection.closed.wait()
        assert wait_gone(left, 2.0) == []


@pytest.mark.slow
async def test_starts_and_kills_leak_no_descriptor() -> None:
    async with open_supervisor(seconds=60) as supervisor:

        async def once() -> None:
            (started,) = await supervisor.start(order("a", "obey"))
            os.kill(started["pid"], signal.SIGKILL)
            await supervisor.wait_exited()

        for _ in range(5):
            await once()
        pids = family(supervisor.keeper.pid)
        roles = [pids[role] for role in ("keeper", "zygote", "supervisor")]
        before = [len(os.listdir(f"/proc/{pid}/fd")) for pid in roles]
        for _ in range(100):
            await once()
        assert [len(os.listdir(f"/proc/{pid}/fd")) for pid in roles] == before


async def test_the_tree_listens_on_no_port() -> None:
    async with open_supervisor() as supervisor:
        await supervisor.start(order("a", "obey"))
        assert not internet_sockets() & set().union(
            *map(descriptors, family(supervisor.keeper.pid).values())
        )


def internet_sockets() -> set[str]:
    """Every TCP and UDP socket of this machine, as ``/proc/*/fd`` shows it."""
    lines: list[str] = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines += Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    return {f"socket:[{line.split()[9]}]" for line in lines}


def descriptors(pid: int) -> set[str]:
    """What the descriptors of ``pid`` lead to."""
    return {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
