"""Files of simulations and studies: what is read, and refusals with line and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from creamas_sc import Experiment
from creamas_sc.errors import BadValue
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.results.record import Record
from creamas_sc.simulation_files.connecting import connect
from creamas_sc.simulation_files.plan import Batch, Connections, Plan, spread
from creamas_sc.simulation_files.reading import SimulationFile
from creamas_sc.simulation_files.source import Source
from creamas_sc.simulation_files.study import read_study

WHOLE = """
folder = "work"
seed = 5
calls = "rounds"
steps = 100
restart = { mode = "transient", restarts = 2 }

[environment]
class = "society.py:Society"
environment = "world:World"
manager = "world:Manager"
address = "localhost:5555"
arguments = { size = 3 }

[slaves]
addresses = ["localhost:5556", "[::1]:0"]
environment = "world:Part"
manager = "world:PartManager"
arguments = [{ n = 1 }, { n = 2 }]

[agents.Painter]
class = "society.py:Painter"
number = 24
[agents.Painter.arguments]
curiosity = 0.3

[agents.Critic]
class = "society:Critic"
number = 2

[connections]
graph = "watts_strogatz_graph"
arguments = { k = 4, p = 0.1 }

[record]
folder = "results"
metrics = "society:measure"
observe_every = 10
connections_every = 5
"""
LEAST = """\
[slaves]
number = 2
[agents.Painter]
class = "society:Painter"
number = 24
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "society.py").touch()
    return tmp_path


def write(folder: Path, text: str, name: str = "simulation.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def plan(folder: Path, text: str, changes: dict[str, Any] | None = None) -> Plan:
    return SimulationFile.read(write(folder, text)).plan(changes)


def test_all_keys(folder: Path) -> None:
    made = plan(folder, WHOLE)
    work = folder / "work"
    assert made.create == {
        "menv_cls": "society:Society",
        "addr": ("localhost", 5555),
        "env_cls": "world:World",
        "mgr_cls": "world:Manager",
        "env_kwargs": {"size": 3},
        "seed": 5,
        "calls": "rounds",
        "restart": RestartPolicy("transient", 2, 60.0),
        "slave_addrs": [("localhost", 5556), ("::1", 0)],
        "slave_env_cls": "world:Part",
        "slave_mgr_cls": "world:PartManager",
        "slave_kwargs": [{"n": 1}, {"n": 2}],
        "agent_classes": ["society:Painter", "society:Critic"],
        "record": Record(
            work / "results", "society:measure", observe_every=10, connections_every=5
        ),
    }
    painters = Batch("society:Painter", 24, {"curiosity": 0.3})
    assert made.agents == [painters, Batch("society:Critic", 2)]
    assert made.connections == Connections(
        "watts_strogatz_graph",
        {"k": 4, "p": 0.1},
        place=f"{folder / 'simulation.toml'}, line 32: connections.graph",
    )
    assert (made.steps, made.folder, made.folders) == (100, work, [str(work)])


def test_the_least(folder: Path) -> None:
    made = plan(folder, LEAST)
    assert made.create == {
        "slave_addrs": [("localhost", 0)] * 2,
        "agent_classes": ["society:Painter"],
    }
    assert (made.steps, made.folder, made.connections) == (None, folder, None)


REFUSED = [
    ("sead = 1\n" + LEAST, 1, "sead: is not a known key; these are: slaves, agents, folder, "),
    ('seed = "x"\n' + LEAST, 1, "seed: expected int, got str"),
    ("seed = true\n" + LEAST, 1, "seed: expected int, got bool"),
    (f"seed = {2**300}\n" + LEAST, 1, "seed: must be an int of at least 0"),
    ("steps = 0\n" + LEAST, 1, "steps: expected int >= 1"),
    ('calls = "often"\n' + LEAST, 1, 'calls: must be "rounds" or "free", not'),
    ('folder = "nowhere"\n' + LEAST, 1, "folder: there is no folder "),
    ('restart = "often"\n' + LEAST, 1, "restart: must be 'temporary'"),
    ("restart = 5\n" + LEAST, 1, "restart: expected str or table, got int"),
    ("[restart]\nrestarts = 5\n" + LEAST, 1, "restart.mode: is missing"),
    ("\nseed = 1\n", None, "slaves: is missing"),
    ("slaves = 2", 1, "slaves: expected table, got int"),
    ("[slaves]\n", 1, "slaves: must have either number or addresses"),
    ("[slaves]\naddresses = []", 2, "slaves.addresses: there must be one at least"),
    ("[slaves]\naddresses = [5]", 2, "slaves.addresses.0: expected str, got int"),
    ('[slaves]\naddresses = ["here"]', 2, "slaves.addresses: 'here': expected HOST:PORT"),
    ("[slaves]\nnumber = 2\nnubmer = 1", 3, "slaves.nubmer: is not a known key; these are: number"),
    (LEAST.replace("number = 24", ""), 3, "agents.Painter.number: is missing"),
    (LEAST.replace("24", "2.5"), 5, "agents.Painter.number: expected int, got float"),
    (LEAST + "curiosity = 1", 6, "agents.Painter.curiosity: is not a known key; these are: class"),
    (LEAST + "arguments = 5", 6, "agents.Painter.arguments: expected table, got int"),
    (LEAST.replace("society:P", "nowhere.py:P"), 4, "agents.Painter.class: 'nowhere.py:Painter': "),
    (LEAST.replace("society:Painter", "Painter"), 4, "agents.Painter.class: 'Painter': expected "),
    (LEAST + "\n[environment]\nclass = 5", 8, "environment.class: expected str, got int"),
    (LEAST + "[slaves.arguments.x]\n[environment]\naddress = 'x:y'", 8, "environment.address: 'x"),
    ("slaves = { number = 2, arguments = [{}] }", 1, "slaves.arguments: there are 1 tables for 2 "),
    (LEAST + "[connections]", 6, "connections: must have either graph or random"),
    (LEAST + "[connections]\nrandom = 0", 7, "connections.random: expected int >= 1"),
    (LEAST + "[connections]\nrandom=3\narguments.k=3", 8, "connections.arguments: are those of a "),
    (LEAST + "[connections]\ngraph='star'", 7, "connections.graph: NetworkX has no generator of "),
    (LEAST + "[connections]\ngraph='shortest_path'", 7, "connections.graph: NetworkX has no gen"),
    (
        LEAST + "[connections]\ngraph='watts_strogatz_graph'",
        7,
        "connections.graph: watts_strogatz_",
    ),
    (LEAST + "[connections]\nx = 1", 7, "connections.x: is not a known key; these are: graph"),
    (LEAST + "[record]\nx = 1", 7, "record.x: is not a known key; these are: folder, metrics"),
    (LEAST + "[environment]\nx = 1", 7, "environment.x: is not a known key; these are: class"),
    (LEAST + "[restart]\nmode = 'all'\nx = 1", 8, "restart.x: is not a known key; these are: mode"),
    (LEAST + "[record]\nobserve_every = 5", 6, "record.folder: is missing"),
    (LEAST + "[record]\nfolder = 'x'\nobserve_every = 0", 8, "record.observe_every: expected int"),
]


@pytest.mark.parametrize(("text", "line", "why"), REFUSED, ids=[why for _, _, why in REFUSED])
def test_refusals_have_file_line_and_key(
    folder: Path, text: str, line: int | None, why: str
) -> None:
    if "[connections]" in text:
        pytest.importorskip("networkx")
    at = str(folder / "simulation.toml") + ("" if line is None else f", line {line}")
    with pytest.raises(BadValue, match=re.escape(f"{at}: {why}")):
        plan(folder, text)


def test_what_is_not_toml(folder: Path) -> None:
    with pytest.raises(BadValue, match=r"simulation.toml is not a TOML file: .*\(at line 2, col"):
        plan(folder, "seed = 1\nseed =\n")
    (folder / "simulation.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(BadValue, match="is not a TOML file: 'utf-8' codec"):
        SimulationFile.read(folder / "simulation.toml")
    with pytest.raises(BadValue, match="nowhere cannot be read: No such file"):
        SimulationFile.read(folder / "nowhere")


LINES = '''
# [a] is a comment
[a."b.c"]
text = """
other = 1
"""
rows = [
  [1, 2],
]
d.e = { f = 1 }
[[tables]]
x = 1
'''


def test_the_lines_of_keys() -> None:
    source = Source(Path("/x.toml"), LINES)
    lines = {
        ("a", "b.c", "text"): 4,
        ("a", "b.c", "rows"): 7,
        ("a", "b.c", "d", "e", "f"): 10,
        ("a", "b.c", "other"): 3,
        ("tables", "x"): 12,
    }
    for key, line in lines.items():
        assert str(source.refusal(key, "")) == f"/x.toml, line {line}: {'.'.join(key)}"


# ---- studies

STUDY = """\
[study]
simulation = "simulation.toml"
folder = "out"
steps = 20
replicates = 3
seed = 9
[study.parameters]
slaves.number = [1, 2]
agents.Painter.curiosity = [0.1, 0.5]
"""


def test_a_study(folder: Path) -> None:
    write(folder, LEAST)
    study = read_study(write(folder, STUDY, "study.toml"))
    parameters = {"slaves.number": [1, 2], "agents.Painter.curiosity": [0.1, 0.5]}
    assert study.parameters == parameters
    assert study.options() == {"folder": folder / "out", "replicates": 3, "seed": 9, "steps": 20}
    made = study.simulation.plan({"slaves.number": 3, "agents.Painter.curiosity": 0.5})
    assert len(made.create["slave_addrs"]) == 3
    assert made.agents == [Batch("society:Painter", 24, {"curiosity": 0.5})]
    assert study.simulation.plan({}).agents == [Batch("society:Painter", 24)]
    experiment = Experiment.from_file(folder / "study.toml")
    assert "12 runs" in repr(experiment)


def test_a_study_with_its_simulation_in_one_file(folder: Path) -> None:
    text = LEAST + STUDY.replace('simulation = "simulation.toml"\n', "")
    study = read_study(write(folder, text, "study.toml"))
    assert study.simulation.plan({}).agents == [Batch("society:Painter", 24)]
    about = study.simulation.about
    write(folder, "seed = 3\n" + text.replace("[0.1,", "[0.2, 0.1,"), "study.toml")
    assert read_study(folder / "study.toml").simulation.about == about
    write(folder, text.replace("24", "25"), "study.toml")
    assert read_study(folder / "study.toml").simulation.about != about


BAD_STUDIES = [
    ("steps = 20", "stebs = 20", 4, "study.stebs: is not a known key; these are: folder, steps"),
    ("steps = 20", "", 1, "study.steps: is missing"),
    ("slaves.number = [1, 2]", "slaves.number = 1", 8, "study.parameters.slaves.number: must be a"),
    ("[1, 2]", "[1, 0]", 8, "study.parameters.slaves.number: {}/simulation.toml, line 2: slaves.n"),
    ("slaves.number", "slaves.x", 8, "study.parameters.slaves.x: {}/simulation.toml, line 1: sla"),
    ("slaves.number", "seed", 8, "study.parameters.seed: seed is no parameter: neither a key of "),
    ("agents.Painter.cu", "agents.Poet.cu", 9, "study.parameters.agents.Poet.curiosity: agents.Po"),
    (
        "[1, 2]",
        "[{ x = 1 }]",
        8,
        "study.parameters.slaves.number: must be an int, float, str, bool",
    ),
    ("agents.Painter.cu", "'slaves.number.cu'\n#", 9, ""),
    ("[study]", "seed = 1\n[study]", 1, "seed: beside study.simulation there are no other keys"),
]


@pytest.mark.parametrize(("old", "new", "line", "why"), BAD_STUDIES)
def test_refused_studies(folder: Path, old: str, new: str, line: int, why: str) -> None:
    write(folder, LEAST)
    path = write(folder, STUDY.replace(old, new, 1), "study.toml")
    reason = re.escape(why.format(folder)) if why else r"is not a TOML file: .*line 9"
    with pytest.raises(BadValue, match=reason) as raised:
        read_study(path)
    assert f"line {line}" in str(raised.value)


def test_a_simulation_alone_is_no_study(folder: Path) -> None:
    with pytest.raises(BadValue, match=r"there is no table \[study\] in it"):
        read_study(write(folder, LEAST))


# ---- connections


class Society:
    """Takes connections."""

    def __init__(self, agents: int, seed: int) -> None:
        self.seed = seed
        self.made: dict[str, list[Any]] = {}
        self._addrs = [f"tcp://h:1/{number}" for number in range(agents)]

    def get_agents(self, addr: bool = True) -> list[str]:
        return self._addrs

    def create_connections(self, made: dict[str, Any]) -> None:
        self.made = {addr: [other for other, _ in others] for addr, others in made.items()}


def connected(connections: Connections, agents: int = 12, seed: int = 1) -> dict[str, list[Any]]:
    society = Society(agents, seed)
    connect(society, connections)
    return society.made


def test_random_connections_follow_from_the_seed() -> None:
    made = connected(Connections(random=3))
    assert len(made) == 12
    for addr, others in made.items():
        assert addr not in others
        assert len({*others}) == 3
    assert connected(Connections(random=3)) == made
    assert connected(Connections(random=3), seed=2) != made
    assert [*map(len, connected(Connections(random=3), agents=2).values())] == [1, 1]


def test_graphs_follow_from_the_seed() -> None:
    pytest.importorskip("networkx")
    graph = Connections("watts_strogatz_graph", {"k": 4, "p": 0.5})
    made = connected(graph)
    assert sum(map(len, made.values())) == 48
    assert connected(graph) == made
    assert connected(graph, seed=2) != made
    given = Connections("watts_strogatz_graph", {"k": 4, "p": 0.5, "seed": 3})
    assert connected(given, seed=1) == connected(given, seed=2)


def test_graphs_with_double_edges_and_loops() -> None:
    pytest.importorskip("networkx")
    made = connected(Connections("scale_free_graph"))
    for addr, others in made.items():
        assert addr not in others
        assert len({*others}) == len(others)
    assert any(made.values())


@pytest.mark.parametrize(
    ("graph", "arguments", "why"),
    [
        ("grid_2d_graph", {"m": 3, "n": 3}, "the graph has 9 nodes, the environment 12 agents"),
        ("random_regular_graph", {"d": 50}, "must be satisfied"),
    ],
)
def test_graphs_that_do_not_fit(graph: str, arguments: dict[str, Any], why: str) -> None:
    pytest.importorskip("networkx")
    with pytest.raises(BadValue, match=f"^/x.toml, line 3: .*{graph} failed: .*{why}"):
        connected(Connections(graph, arguments, place="/x.toml, line 3: connections.graph"))


def test_agents_are_spread_evenly() -> None:
    assert spread(5, ["a", "b", "c"]) == [("a", 2), ("b", 2), ("c", 1)]
    assert spread(1, ["a", "b"]) == [("a", 1)]
