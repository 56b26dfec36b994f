"""The pure parts of the spirographs example: curves, memory, which agents ask which, the report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("PIL", reason="the extra 'examples' is not installed")

from PIL import Image

from creamas_sc import Artifact, Environment, run
from examples.spirographs import curves, report
from examples.spirographs.agent import Spirographer
from examples.spirographs.curves import Gears
from examples.spirographs.memory import Memory
from examples.spirographs.society import Plan, Step, peers_of
from tests.support.properties import holds_for

holds = partial(holds_for, few=40, many=200)

gears = st.integers(*curves.RINGS).flatmap(
    lambda ring: st.builds(
        Gears,
        st.just(ring),
        st.integers(1, ring - 1),
        st.floats(*curves.PENS),
        st.floats(0.0, 1.0, exclude_max=True),
    )
)


@holds(gears)
def test_a_curve_closes_and_reaches_the_unit_circle(gears: Gears) -> None:
    xy = curves.curve(gears)
    radius = np.hypot(*xy.T)
    assert np.allclose(xy[0], xy[-1])
    assert radius.max() == pytest.approx(1.0, abs=0.01)


@holds(gears)
def test_a_picture_has_ink_and_bare_paper(gears: Gears) -> None:
    image = curves.picture(gears)
    assert image.shape == (curves.SIDE, curves.SIDE)
    assert image.dtype == np.uint8
    assert image.max() > 0
    assert image.min() == 0


def test_a_four_petal_curve_looks_the_same_after_a_quarter_turn() -> None:
    xy = curves.curve(Gears(4, 1, 1.0, 0.0))
    quarter = len(xy) // 4
    turned = xy[: len(xy) - quarter] @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert np.allclose(turned, xy[quarter:], atol=0.02)


@holds(gears, st.integers(0, 2**32 - 1))
def test_mutated_gears_still_fit_together(gears: Gears, seed: int) -> None:
    mutant = curves.mutate(gears, np.random.default_rng(seed), spread=2.0)
    assert curves.RINGS[0] <= mutant.ring <= curves.RINGS[1]
    assert 1 <= mutant.wheel < mutant.ring
    assert curves.PENS[0] <= mutant.pen <= curves.PENS[1]
    assert 0.0 <= mutant.tilt < 1.0


def test_distance_runs_from_0_to_1() -> None:
    bare = np.zeros((32, 32), dtype=np.uint8)
    full = np.full((32, 32), 255, dtype=np.uint8)
    assert curves.distance(bare, np.stack([bare, full]).astype(np.float32)).tolist() == [0.0, 1.0]


def test_nothing_remembered_is_all_new() -> None:
    memory = Memory(3)
    assert memory.novelty(_flat(0)) == 1.0
    assert memory.recall(np.random.default_rng(1)) is None


def test_novelty_is_the_distance_to_the_nearest() -> None:
    memory = Memory(3)
    for grey in (0, 100, 255):
        memory.memorize(Gears(3, 1, 1.0, 0.0), _flat(grey))
    assert memory.novelty(_flat(100)) == 0.0
    assert memory.novelty(_flat(151)) == pytest.approx(51 / 255)


def test_a_full_memory_forgets_its_oldest() -> None:
    memory = Memory(2)
    for ring, grey in enumerate((0, 100, 255, 50), start=3):
        memory.memorize(Gears(ring, 1, 1.0, 0.0), _flat(grey))
    assert len(memory) == 2
    assert memory.novelty(_flat(100)) == pytest.approx(50 / 255)
    draw = np.random.default_rng(1)
    assert {memory.recall(draw).ring for _ in range(50)} == {5, 6}  # type: ignore[union-attr]


def test_a_memory_needs_room() -> None:
    with pytest.raises(ValueError, match="room for at least one picture"):
        Memory(0)


def test_novelties_are_distances_to_the_nearest_before() -> None:
    draw = np.random.default_rng(1)
    images = [curves.picture(curves.random_gears(draw)) for _ in range(12)]
    images[7] = images[3]
    others = np.stack(images).astype(np.float32)
    nearest = [curves.distance(images[n], others[:n]).min() for n in range(1, 12)]
    for block in (1, 5, 256):
        assert curves.novelties(images, block) == pytest.approx(nearest)
    assert curves.novelties(images)[6] == 0.0
    assert curves.novelties(images[:1]) == curves.novelties([]) == []


def test_peers_follow_the_seed_and_not_the_slaves() -> None:
    peers = peers_of(Plan(agents=9, slaves=3, peers=4, seed=7))
    assert peers == peers_of(Plan(agents=9, slaves=1, peers=4, seed=7))
    assert peers != peers_of(Plan(agents=9, slaves=3, peers=4, seed=8))
    for agent, asked in enumerate(peers):
        assert len(asked) == len(set(asked)) == 4
        assert agent not in asked


@pytest.mark.parametrize(("agents", "asked"), [(1, 0), (3, 2)])
def test_in_a_small_society_all_others_are_peers(agents: int, asked: int) -> None:
    peers = peers_of(Plan(agents=agents, slaves=1, peers=4))
    assert [len(others) for others in peers] == [asked] * agents
    assert all(agent not in others for agent, others in enumerate(peers))


@pytest.mark.parametrize(
    ("habits", "discards", "asks", "publishes"),
    [
        ({}, True, False, False),
        ({"self_critical": False}, False, True, False),
        ({"self_critical": False, "quorum": 0.0}, False, False, True),
        ({"threshold": 0.0}, False, True, True),
    ],
)
def test_what_becomes_of_an_invention(
    habits: dict[str, Any], discards: bool, asks: bool, publishes: bool
) -> None:
    env = Environment.create(("localhost", 0))
    env.seed, env.calls = 1, "rounds"
    try:
        agents = [Spirographer(env, {"threshold": 0.9, **habits}) for _ in range(3)]
        for agent in agents:
            for other in agents:
                if other is not agent:
                    agent.add_connection(other.addr, name=other.name)
        outcomes = run(env.trigger_all())
        assert [outcome.discarded for outcome in outcomes] == [discards] * 3
        assert [outcome.asked for outcome in outcomes] == [2 * asks] * 3
        assert len(env.artifacts) == 3 * publishes
    finally:
        env.close()


def test_the_table_sums_up_each_society() -> None:
    runs = {"bold": [_step(number) for number in range(1, 4)], "shy": [Step(1, 2, 2, 0, [])]}
    assert [line.split() for line in report.table(runs).splitlines()] == [
        ["society", "invented", "discarded", "opinions", "vetoed", "published", "novelty"],
        ["bold", "9", "3", "15", "3", "3", "0.039"],
        ["shy", "2", "2", "0", "0", "0", "-"],
    ]


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("count", [1, 3, 120])
def test_the_pictures_are_drawn(tmp_path: Path, count: int, published: bool) -> None:
    steps = [_step(number, published) for number in range(1, count + 1)]
    report.contact_sheet(steps, tmp_path / "sheet.png", most=50)
    runs = {"first": steps, "second": steps[:1], "third": steps}
    report.effects_plot(runs, tmp_path / "plot.png", "seed 1")
    for name in ("sheet.png", "plot.png"):
        with Image.open(tmp_path / name) as image:
            image.load()
            assert image.format == "PNG"
            assert image.convert("L").getextrema() != (250, 250)  # more than bare paper


def _flat(grey: int) -> curves.Image:
    return np.full((curves.SIDE, curves.SIDE), grey, dtype=np.uint8)


def _step(number: int, published: bool = True) -> Step:
    made = Artifact("maker", _flat(10 * number % 256), domain=np.ndarray)
    made.add_feature_value("gears", (5, 2, 0.8, 0.1))
    return Step(number, 3, 1, 5, [made] if published else [])


@pytest.mark.parametrize(
    ("most", "tick"), [(0, 1), (8, 1), (9, 2), (17, 5), (41, 10), (96, 20), (400, 50), (401, 100)]
)
def test_ticks_are_round(most: float, tick: int) -> None:
    assert report._tick(most) == tick


def test_the_plots_scale_begins_at_0_and_its_band_shows_the_spread() -> None:
    image, draw = report._canvas(100, 120)
    axes = report._Axes(draw, (0, 0, 100, 100), (1, 3), 0.5, 0.1)
    assert [axes.place(1, value)[1] for value in (0.0, 0.25, 0.5)] == [100, 50, 0]
    # Mean 0.3, standard deviation 0.1.
    axes.series([[0.2, 0.4], [], [0.2, 0.4]], report.EARLY, 3, band=True)
    pixels = np.asarray(image)[:, image.width // 2].astype(int)
    drawn = [y / report.SCALE for y in range(100 * report.SCALE) if pixels[y][2] - pixels[y][0] > 8]
    assert min(drawn) == pytest.approx(20, abs=1)
    assert max(drawn) == pytest.approx(60, abs=1)


def test_pictures_that_are_left_out_are_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []
    monkeypatch.setattr(report, "_text", lambda _draw, _place, text, *rest: words.append(text))
    steps = [_step(number) for number in range(1, 9)]
    report.contact_sheet(steps, tmp_path / "sheet.png", "seed 1", most=5)
    shown = "8 spirographs were published in 8 steps; 5 of them are shown, evenly spaced"
    assert words == [f"{shown}, the first in blue, the last in red", "seed 1"]
