"""What is asked of the daemon itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from creamas_sc.client import connect_sync
from creamas_sc.errors import BadValue, LoadError, StartError, UnknownSimulation
from creamas_sc.reports import StopReport
from tests.support import daemons
from tests.support.clients import BOUND_SECONDS, SOCIETY, Named, connected, each_client, plain

TWO = [("localhost", 0)] * 2


@each_client
async def test_the_life_of_a_simulation(kind: str, named: Named) -> None:
    name = named()
    async with connected(kind) as client:
        made = await client.create(name, slave_addrs=TWO, slave_mgr_cls=f"{SOCIETY}:Curator")
        assert made["name"] == name
        assert len(made["addrs"]) == 2
        (summary,) = [about for about in await client.ls() if about["name"] == name]
        assert (summary["state"], summary["pid"]) == ("running", made["pid"])
        assert summary["host"]["slaves"] == 2
        report = await client.close(name)
        assert isinstance(report, StopReport)
        assert [slave.address for slave in report] == made["addrs"]
        assert report.graceful
        assert name not in [about["name"] for about in await client.ls()]
        (ended,) = [about for about in await client.ls(all=True) if about["name"] == name]
        assert (ended["state"], ended["cause"]) == ("ended", "closed")


@each_client
async def test_a_host_gets_its_creators_environment_and_folder(
    kind: str, named: Named, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = named()
    monkeypatch.setenv("STYLE", "cubist \udcff")
    (tmp_path / "é \udcff").mkdir()
    monkeypatch.chdir(tmp_path / "é \udcff")
    async with connected(kind) as client:
        await client.create(name, menv_cls=f"{SOCIETY}:Studio", restart="all")
        assert "STYLE" in (await client.inspect(name))["environ"]
        assert "cubist" not in str(await client.inspect(name))
        about = await client.inspect(name, environ=True)
        assert about["cwd"] == os.getcwd()
        assert os.getcwd() in about["path"]
        assert not any("site-packages" in folder for folder in about["path"][1:])
        assert about["environ"]["STYLE"] == "cubist \udcff"
        assert about["about"]["menv_cls"] == f"{SOCIETY}:Studio"
        assert about["about"]["restart"] == "all"
        assert [process["slot"] for process in about["processes"]] == ["host"]
        await client.kill(name)


def test_seed(daemon: object, named: Named) -> None:
    name = named()
    with connect_sync(timeout=BOUND_SECONDS) as client:
        client.create(name, seed=3)
        assert client.inspect(name)["about"]["seed"] == 3
        with client.attach(name) as simulation:
            assert simulation.get_seed() == 3


def test_how_calls_go(daemon: object, named: Named) -> None:
    name = named()
    with connect_sync(timeout=BOUND_SECONDS) as client:
        with pytest.raises(BadValue, match='calls must be "rounds" or "free"'):
            client.create(name, calls="ronds")
        client.create(name, calls="rounds", slave_addrs=[("localhost", 0)] * 2)
        assert client.inspect(name)["about"]["calls"] == "rounds"
        with client.attach(name) as simulation:
            assert simulation.get_calls() == "rounds"
            assert simulation.trigger_all() == []
            simulation.set_calls("free")
            assert simulation.get_calls() == "free"


COUNTED = """
import os
from pathlib import Path
from creamas_sc import CreativeAgent
Path(__file__).with_name(f"{os.getpid()}.load").touch()
class Painter(CreativeAgent):
    pass
"""


@pytest.mark.parametrize("classes", [["counted:Painter"], []])
def test_slaves_load_the_classes_of_agents_that_create_names(
    classes: list[str],
    daemon: object,
    named: Named,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.chdir(tmp_path)
    with connect_sync(timeout=BOUND_SECONDS) as client:
        client.create(named(), slave_addrs=TWO, agent_classes=classes)
    assert len(list(tmp_path.glob("*.load"))) == 2 * len(classes)


VERSIONED = """
from creamas_sc import CreativeAgent, expose
class Painter(CreativeAgent):
    @expose
    def version(self):
        return 1
"""


def test_code_edited_during_a_simulation_is_not_loaded(
    daemon: object, named: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, file = named(), tmp_path / "versioned.py"
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{tmp_path}")
    file.write_text(VERSIONED)
    with connect_sync(timeout=BOUND_SECONDS) as client:
        client.create(name, slave_addrs=TWO)
        with client.attach(name) as simulation:
            first, second = simulation.get_addrs()
            before, _ = simulation.spawn("versioned:Painter", addr=first)
            file.write_text(VERSIONED.replace("1", "2") + "class New: pass")
            after, _ = simulation.spawn("versioned:Painter", addr=second)
            assert [before.version(), after.version()] == [1, 1]
            with pytest.raises(LoadError, match=r"versioned\.py was changed: this simulation runs"):
                simulation.spawn("versioned:New")
        client.close(name)
        client.create(name, slave_addrs=TWO)
        with client.attach(name) as simulation:
            now, _ = simulation.spawn("versioned:Painter")
            assert now.version() == 2


@each_client
async def test_status(kind: str, named: Named) -> None:
    async with connected(kind) as client:
        status = await client.status()
        assert status["name"] == "default"
        assert status["socket"] == str(client.socket)
        assert status["pid"] == client.pid
        assert repr(plain(client)).endswith(f"of the daemon 'default' (pid {client.pid})>")


@each_client
async def test_kill(kind: str, named: Named) -> None:
    name = named()
    async with connected(kind) as client:
        await client.create(name, slave_addrs=TWO)
        reports = await client.kill(name)
        assert sorted(report["slot"] for report in reports) == ["host", "slave-0", "slave-1"]


@each_client
async def test_close_saves(kind: str, named: Named, tmp_path: Path) -> None:
    name = named()
    async with connected(kind) as client:
        await client.create(name, menv_cls=f"{SOCIETY}:Studio", slave_addrs=TWO)
        report = await client.close(name, str(tmp_path), timeout=2.0)
        assert report.saved == ("saved", str(tmp_path))


@each_client
async def test_no_such_simulation(kind: str, named: Named) -> None:
    name = named()
    async with connected(kind) as client:
        for ask in (client.close, client.kill, client.inspect):
            with pytest.raises(UnknownSimulation, match=f"{name!r}.*`create`"):
                await ask(name)
        with pytest.raises(UnknownSimulation, match=f"{name!r}.*`create`"):
            async with client.attach(name):
                pass


@each_client
async def test_what_cannot_be_created(kind: str, named: Named) -> None:
    name = named()
    async with connected(kind) as client:
        await client.create(name)
        with pytest.raises(BadValue, match=f"{name!r} already"):
            await client.create(name)
        with pytest.raises(BadValue, match=r"'temporary' .* or 'all' .*, not 'always'"):
            await client.create(named(), restart="always")
        with pytest.raises(BadValue, match="not a name for a simulation"):
            await client.create("a/b")
        with pytest.raises(LoadError, match="'Studio' is not a class name"):
            await client.create(named(), menv_cls="Studio")
        with pytest.raises(StartError, match=r"module 'nowhere' .* does not import"):
            await client.create(named(), menv_cls="nowhere:Studio")
        with pytest.raises(StartError, match=r"module 'nowhere' .* does not import"):
            await client.create(named(), slave_addrs=TWO, slave_env_cls="nowhere:Env")
        with pytest.raises(TypeError):
            await client.create(named(), nothing=1)
        # All of them are undone.
        assert [about["name"] for about in await client.ls()] == [name]
        await client.kill(name)


def test_too_many_slaves_are_refused_and_slow_nobody_down(daemon: object, named: Named) -> None:
    name = named()
    with connect_sync(timeout=BOUND_SECONDS) as client:
        with pytest.raises(StartError, match=r"slaves: a simulation can have 512$") as caught:
            client.create(name, slave_addrs=[("localhost", 0)] * 100_000)
        assert "creamas_sc.errors" not in str(caught.value)
        (ended,) = [about for about in client.ls(all=True) if about["name"] == name]
        assert ended["cause"] == str(caught.value)


@each_client
async def test_classes_instead_of_names(kind: str, named: Named) -> None:
    """A class that this process has is sent by its name."""

    class Local:
        pass

    async with connected(kind) as client:
        with pytest.raises(LoadError, match="defined inside a function"):
            await client.create(named(), menv_cls=Local)


def test_stop(tmp_path: Path, named: Named) -> None:
    with daemons.running(tmp_path, "another") as another:
        with connect_sync("another", timeout=BOUND_SECONDS) as client:
            client.create("sim", slave_addrs=TWO)
            (about,) = client.stop()
            assert about["name"] == "sim"
            assert isinstance(about["report"], StopReport)
            assert [slave.ended_by for slave in about["report"]] == ["request"] * 2
            assert another.process.wait(10) == 0
