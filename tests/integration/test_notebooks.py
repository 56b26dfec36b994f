"""Live views in cells of a real kernel, such as JupyterLab runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import daemons
from tests.support.programs import ROOT

BOUND_SECONDS = 60
PAINTERS = """
import trio
from creamas_sc import Artifact, CreativeAgent, MultiEnvironment, expose

class Painter(CreativeAgent):
    @expose
    async def act(self):
        await trio.sleep(0.02)
        self.publish(Artifact(self, self.rng.random(), domain=float))

class Gallery(MultiEnvironment):
    def observe(self):
        return {"paintings": len(self.artifacts)}
"""
START = """
from creamas_sc import Environment, run
from creamas_sc.mp import EnvManager
from creamas_sc.notebooks import show_steps
from painters import Gallery, Painter

menv = Gallery(("localhost", 0), Environment, seed=1, record="record")
run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager))
for _ in range(4):
    run(menv.spawn(Painter))
"""
STEPS = """
for step in show_steps(menv, 40):
    run(menv.trigger_all())
"""
SIMULATION = """
from creamas_sc import Simulation
steps = Simulation(menv).async_steps(3)
"""
LEFT = """
import threading
threads = threading.active_count()
for step in show_steps(menv, 100):
    run(menv.trigger_all())
    if step == 3:
        break
print(threading.active_count() - threads)
"""
FOLLOW = f"""
from creamas_sc.client import connect_sync
from creamas_sc.notebooks import show_simulation

client = connect_sync({daemons.NAME!r})
client.create("colours", slave_addrs=[("localhost", 0)] * 2, agent_classes=["painters:Painter"])
colours = client.attach("colours")
for _ in range(4):
    colours.spawn("painters:Painter")
colours.start_steps(100)
show_simulation(colours)
"""

CLOSE = "colours.close(); client.disconnect()"
# In a process of its own, as nbclient leaves descriptors behind.
RUN = """
import json, sys
from nbclient import NotebookClient
from nbformat import v4

cells = json.load(sys.stdin)
made = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
NotebookClient(made, timeout=60).execute()
json.dump([cell.outputs for cell in made.cells], sys.stdout)
"""


def run_cells(cells: Sequence[str], folder: Path) -> list[list[Any]]:
    """Run cells in a kernel; the outputs of each."""
    for name in ("ipykernel", "nbclient"):
        pytest.importorskip(name, reason=f"{name}, of the group notebooks, is not installed")
    (folder / "painters.py").write_text(PAINTERS)
    variables = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(cells),
        stdout=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, **variables},
        text=True,
        timeout=BOUND_SECONDS,
        check=True,
    )
    outputs: list[list[Any]] = json.loads(ran.stdout)
    return outputs


def text_of(output: Any) -> str:
    return re.sub(r"<[^>]*>", " ", output["data"]["text/html"])


@pytest.mark.slow
def test_views_in_cells_end_with_their_runs(tmp_path: Path) -> None:
    with daemons.running(tmp_path / "logs"):
        cells = [START, STEPS, SIMULATION, LEFT, "menv.close();", FOLLOW, CLOSE]
        _, steps, simulation, left, _, followed, _ = run_cells(cells, tmp_path)
    (view,) = steps
    assert "Gallery  done, step 40 of 40" in text_of(view)
    assert "paintings 160" in text_of(view)
    assert "the last of 160 artifacts" in text_of(view)
    assert "<polyline" in view["data"]["text/html"]
    assert "done, step 3 of 3" in text_of(simulation[0])
    view, printed = left
    assert "stopped, step 3 of 100" in text_of(view)
    assert printed["text"] == "0\n"  # no thread goes on drawing
    (view,) = followed
    assert "colours  idle, step 100 of 100" in text_of(view)
    assert "the last of 400 artifacts" in text_of(view)
