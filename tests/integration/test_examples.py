"""The examples as a user runs them: what they print and leave, and Ctrl-C in the middle."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from tests.support.processes import reaping_orphans
from tests.support.programs import ROOT, Program, run

SPIROGRAPHS = [sys.executable, "-m", "examples.spirographs"]
PICTURES = ("spirographs.png", "effects.png")
PORTED = ROOT / "examples" / "porting"
BOUND_SECONDS = 60


def test_the_quickstart_publishes_numbers() -> None:
    done = _run(sys.executable, str(ROOT / "examples" / "quickstart.py"))
    *published, last = done.stdout.splitlines()
    assert done.stderr == ""
    assert last == f"{len(published)} of 30 numbers were published"
    for line in published:
        form = r"tcp://localhost:555[67]/\d published \d+, which tcp://localhost:555[67]/\d likes"
        assert re.fullmatch(form, line)


@pytest.mark.slow
def test_the_port_of_a_broadcast() -> None:
    done = _run(sys.executable, str(PORTED / "broadcast.py"))
    *steps, last = done.stdout.splitlines()
    likings = [re.fullmatch(r"step \d: 1000 listeners like it (0\.\d+)", step) for step in steps]
    values = [float(liking[1]) for liking in likings if liking]
    assert len(values) == 5
    assert values == sorted(values)
    assert re.fullmatch(r"the tastes of 1000 listeners differ by 0\.\d+", last)
    assert done.stderr == ""


@pytest.mark.long
def test_the_port_of_a_sweep() -> None:
    ports = map(str, random.sample(range(20_000, 30_000), 3))  # the system gives out higher ones
    done = _run(sys.executable, str(PORTED / "sweep.py"), *ports)
    camps = [int(line.rpartition(": ")[2]) for line in done.stdout.splitlines()]
    assert len(camps) == 4
    assert camps[0] > camps[-1]
    assert done.stderr == ""


@pytest.mark.slow
def test_the_port_of_a_vote() -> None:
    done = _run(sys.executable, str(PORTED / "voting.py"))
    *steps, last = done.stdout.splitlines()
    assert last == "6 poems were published"
    for number, line in enumerate(steps, 1):
        assert re.fullmatch(rf"step {number}: 12 votes for poet \d+'s \(\d, \d, \d\)", line)
    assert done.stderr == ""


def test_the_readmes_simulation_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_block("python", "class Painter"))
    done = _run(sys.executable, str(script))
    assert (done.stdout, done.stderr) == ("50 artifacts\n", "")


@pytest.mark.slow
def test_spirographs_leave_a_table_and_two_pictures(tmp_path: Path) -> None:
    done = _run(*SPIROGRAPHS, "--agents=8", "--steps=12", "--seed=1", f"--out={tmp_path}")
    assert "step 12/12" in done.stderr
    assert done.stdout.startswith("8 agents, seed 1, in 2 slaves, ")
    lines = done.stdout.splitlines()
    (header,) = [line for line in lines if line.startswith("society")]
    assert header.split()[1:4] == ["invented", "discarded", "opinions"]
    for society in ("self-criticism and vetoes", "vetoes alone", "neither"):
        (row,) = [line.removeprefix(society) for line in lines if line.startswith(society)]
        invented, discarded, opinions, vetoed, published = map(int, row.split()[:5])
        assert invented == 96 == discarded + vetoed + published
        assert (discarded > 0) == society.startswith("self-criticism")
        assert opinions == (0 if society == "neither" else 4 * (96 - discarded))
    for name in PICTURES:
        with Image.open(tmp_path / name) as image:
            image.verify()


@pytest.mark.long
def test_the_readmes_study_and_its_plot(tmp_path: Path) -> None:
    """With fewer and shorter runs than the README's, in another folder."""
    pytest.importorskip("matplotlib")
    study, plot = _block("sh", "sweep").splitlines()
    folder = tmp_path / "spirographs-study"
    for name in ("simulation.toml", "study.toml"):
        text = (ROOT / "examples" / "spirographs" / name).read_text()
        for old, new in (
            ("../..", str(ROOT)),
            ("spirographs-study", str(folder)),
            ("steps = 20", "steps = 3"),
            ("replicates = 10", "replicates = 1"),
        ):
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "supervisor.cli"]
    study = study.rpartition("creamas-supervisor ")[2]
    plot = plot.rpartition("creamas-supervisor ")[2]
    words = study.replace("examples/spirographs", str(tmp_path)).split()
    assert _run(*command, *words).stdout == f"8 of 8 runs done; they are in {folder}\n"
    words = plot.replace("spirographs-study", str(folder)).split()
    words[words.index("study.png")] = str(tmp_path / "study.png")
    assert json.loads(_run(*command, *words, "--json").stdout)["lines"] == 2
    with Image.open(tmp_path / "study.png") as image:
        image.verify()


@pytest.mark.slow
def test_a_seed_repeats_the_pictures_at_any_number_of_slaves(tmp_path: Path) -> None:
    drawn = []
    for number, slaves in enumerate((1, 3)):
        out = tmp_path / str(number)
        options = ["--agents=10", "--steps=6", f"--slaves={slaves}", "--seed=7", f"--out={out}"]
        _run(*SPIROGRAPHS, *options)
        drawn.append([(out / name).read_bytes() for name in PICTURES])
    assert drawn == [drawn[0]] * len(drawn)


@pytest.mark.slow
def test_ctrl_c_ends_spirographs_at_once(tmp_path: Path) -> None:
    command = [*SPIROGRAPHS, "--steps=10000", f"--out={tmp_path / 'out'}"]
    with Program(command) as script:
        line = script.read_until("", BOUND_SECONDS, stream=script.process.stderr)
        assert line.startswith("step "), "it did not get to work"
        script.signal(signal.SIGINT, group=True)  # as a terminal does
        pressed = time.monotonic()
        code, stdout, stderr = script.finish()
        assert time.monotonic() - pressed < 3
    assert code == 130
    step = int(stderr.splitlines()[-1].removeprefix("interrupted in step "))
    assert "Traceback" not in stdout + stderr
    assert re.search(rf"^self-criticism and vetoes +{24 * (step - 1)} ", stdout, re.MULTILINE)
    for name in PICTURES:
        with Image.open(tmp_path / "out" / name) as image:
            image.verify()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("distributed") is None, reason="dask is not installed (extra dask)")
def test_painters_beside_the_workers_of_a_cluster() -> None:
    with reaping_orphans():
        done = _run(sys.executable, "-m", "examples.cluster.local")
    *nodes, last = done.stdout.splitlines()
    assert [re.sub(r".*: (.*), \d+ cores", r"\1", node) for node in nodes] == ["2 slaves"] * 3
    assert re.fullmatch(r"\d+ colours, \d+ of them by tcp://127\.0\.0\.1:\d+/\d", last)


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        "--agents=0",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("--slaves=two", "--seed=-1")),
        "--out=/proc/there",
    ],
)
def test_a_wrong_option_is_refused(option: str) -> None:
    done = run(*SPIROGRAPHS, option)
    assert done.returncode == 2
    assert option.split("=")[0] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders for a daemon that the test starts; it is stopped at the end in any case."""
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("COLUMNS", "200")
    yield
    run("creamas-supervisor", "stop")


@pytest.mark.slow
def test_the_readmes_tour_of_the_daemon(daemon: None, tmp_path: Path) -> None:
    start, create, step, attach, stop = _block("sh", "creamas-supervisor start").splitlines()
    for command in (start, create, step):
        _run("sh", "-c", command)
    with Program(["sh", "-c", f"exec {attach}"]) as attached:
        assert "100 agents" in attached.read_until("")
        attached.signal(signal.SIGINT)
        assert attached.finish()[0] == 130
    script = tmp_path / "visit.py"
    script.write_text(_block("python", "connect_sync"))
    done = _run(sys.executable, str(script))
    assert re.match(r"100 painters have published \d+ colours\n\[\(", done.stdout)
    assert _run("creamas-supervisor", "ls", "--json").stdout.count('"stepping"') == 1
    _run("sh", "-c", stop)


@pytest.mark.slow
def test_one_script_leaves_a_simulation_for_others(daemon: None) -> None:
    _run("creamas-supervisor", "start")
    attach = (sys.executable, str(ROOT / "examples" / "attach.py"))
    assert _run(*attach, "create").stdout == "palette goes on stepping in the daemon\n"
    for form in ([], ["--async"]):
        done = _run(*attach, "visit", *form)
        assert re.match(r"24 painters have published \d+ colours\n", done.stdout)
    assert _run(*attach, "close").stdout.count("by request\n") == 2


def _block(language: str, having: str) -> str:
    """Find the README's block of code that has these words."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)
    (found,) = (block for block in blocks if having in block)
    return str(found)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the clone, which must succeed."""
    done = run(*command, seconds=BOUND_SECONDS)
    assert done.returncode == 0, done.stderr
    return done
