"""What a host shows of its simulation, with real slaves, and that it changes nothing."""

from __future__ import annotations

import pytest

from creamas_sc.errors import DeadlineExceeded
from tests.support.hosting import hosting, spec

pytestmark = pytest.mark.usefixtures("shared_supervisor")


async def test_it_shows_artifacts_agents_and_slaves_and_steps_stay_repeatable() -> None:
    async with hosting() as host, host.client() as client, host.client() as watcher:
        (one, _), (other, _) = [await client("spawn", "tests.support.agents:Counter") for _ in "12"]
        links = {one.addr: [(other.addr, {"weight": 0.5})], other.addr: [(one.addr, {"kind": "x"})]}
        await client("create_connections", links)
        await client("start_steps", None)
        for _ in range(5):
            society = await watcher("get_society", 10)
            assert society["agent"] == ["0", "1"]
            assert society["address"] == [one.addr, other.addr]
            assert society["type"] == ["tests.support.agents:Counter"] * 2
            edges = list(zip(society["from"], society["to"], society["weight"], strict=True))
            assert sorted(edges) == [(0, 1, 0.5), (1, 0, 1.0)]
            assert society["edges"] == 2
            await watcher("process_loads")
            await watcher("get_artifact_scores")
        progress = await client("pause")
        assert progress["step"] > 5
        assert (progress["repeatable"], progress["why"]) == (True, [])
        total = 2 * progress["step"]
        scores = await watcher("get_artifact_scores", total - 2, 10)
        assert scores["total"] == total
        assert scores["agent"] == ["0", "1"]
        assert scores["step"] == [progress["age"]] * 2
        (shown,) = await watcher("show_artifacts", [total - 1], True)
        assert (shown["artifact"], shown["text"]) == (total - 1, str(progress["step"]))


async def test_a_society_is_asked_for_between_steps() -> None:
    async with hosting() as host, host.client() as client:
        await client("spawn", "tests.support.agents:Sleeper")
        await client("start_steps", 1)
        with pytest.raises(DeadlineExceeded, match="between steps") as caught:
            await client("get_society", 0.1)
        assert caught.value.acknowledged


async def test_a_society_without_slaves() -> None:
    async with hosting(spec(slave_addrs=[])) as host, host.client() as client:
        society = await client("get_society")
        assert (society["agent"], society["edges"]) == ([], 0)
