"""Which classes a client may name to a simulation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from creamas_sc import Artifact
from creamas_sc.client import daemon_api
from creamas_sc.client.class_resolution import ClassName, RemoteClasses, ScriptCodec, version
from creamas_sc.client.daemon_api import _search_path
from creamas_sc.errors import EncodeError, LoadError
from creamas_sc.runtime.main_script import MainScript
from creamas_sc.simulation_api import OPERATIONS

OURS = sys.version_info[:2]
OTHER = (OURS[0], OURS[1] + 1)


class InModule(Artifact):
    """Found by its module's name."""


class InScript(Artifact):
    """Stands for a class of the script."""


@dataclass
class Record:
    """Stands for a dataclass of the script."""


def function() -> None:
    """Stands for a function of the script."""


for each in (InScript, Record, function):
    each.__module__ = "__main__"


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MainScript:
    file = tmp_path / "paint.py"
    file.write_text("")
    script = MainScript(str(file), None, ())
    monkeypatch.setattr(MainScript, "of_this_process", classmethod(lambda cls: script))
    monkeypatch.setattr(sys.modules["__main__"], "InScript", InScript, raising=False)
    return script


def maker() -> Any:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("given", "python"), [("3.11.7", (3, 11)), ("3.14.0rc1", (3, 14)), ((3, 12), (3, 12))]
)
def test_versions(given: Any, python: tuple[int, int]) -> None:
    assert version(given) == python


def test_before_there_is_a_simulation() -> None:
    remote = RemoteClasses("default", OURS)
    assert remote.name(InScript) == "__main__:InScript"
    assert remote.name("paint:InScript") == "__main__:InScript"
    assert remote.name(InModule).endswith("test_class_resolution:InModule")
    assert remote.name("far.away:Cls") == "far.away:Cls"


@pytest.mark.parametrize("cls", [InScript, "__main__:InScript", "paint:InScript"])
def test_another_python(cls: Any) -> None:
    remote = RemoteClasses("default", OTHER)
    said = rf"the daemon 'default' runs Python 3\.{OTHER[1]}: move it to a module, say agents\.py"
    with pytest.raises(LoadError, match=said):
        remote.name(cls)
    remote.name(InModule)


def test_another_script(tmp_path: Path, script: MainScript) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(script.file)
    assert RemoteClasses("default", OURS, "sim", str(link)).name(InScript) == "__main__:InScript"
    with pytest.raises(LoadError, match=r"'sim' was created by /elsewhere\.py, .* move it to"):
        RemoteClasses("default", OURS, "sim", "/elsewhere.py").name(InScript)
    with pytest.raises(LoadError, match="created by a script that has no file"):
        RemoteClasses("default", OURS, "sim", None).name(InScript)


def test_arguments_of_operations() -> None:
    remote = RemoteClasses("default", OURS, "sim", "/elsewhere.py")
    name = f"{InModule.__module__}:InModule"
    spawn, get_agents = OPERATIONS["spawn"], OPERATIONS["get_agents"]
    assert remote.arguments(spawn, (InModule, 1), {"x": 2}) == ((name, 1), {"x": 2})
    assert remote.arguments(spawn, (), {"agent_cls": name, "addr": "a"}) == ((name,), {"addr": "a"})
    for cls in (InModule, name):
        (addr, given), _ = remote.arguments(get_agents, (False, cls), {})
        assert (addr, given) == (False, ClassName(name))
        codec = ScriptCodec(_NoCaller())
        assert codec.decode(codec.encode(given)) is InModule
    assert remote.arguments(get_agents, (), {}) == ((), {})
    for operation, args in ((spawn, (InScript,)), (get_agents, (True, InScript))):
        with pytest.raises(LoadError, match="was created by"):
            remote.arguments(operation, args, {})
    slaves = ([("localhost", 0)], InModule, InModule, [{"extra_serializers": [maker]}])
    (_, first, second, (kwargs,)), _ = remote.arguments(OPERATIONS["spawn_slaves"], slaves, {})
    assert (first, second) == (name, name)
    assert kwargs == {"extra_serializers": [f"{__name__}:maker"]}


class _NoCaller:
    def call_agent(self, address: str, method: str, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError


def test_values_of_the_script() -> None:
    codec = ScriptCodec(_NoCaller())
    codec.remote = RemoteClasses("default", OURS, "sim", "/elsewhere.py")
    for value in (InScript("me", 1), InScript, Record(), function):
        with pytest.raises(EncodeError, match=r"^args\[0\]\['x'\]: .* was created by /elsewhere"):
            codec.encode((({"x": value},), {}))
    codec.encode((({"x": InModule},), {}))
    codec.remote = RemoteClasses("default", OURS, "sim", MainScript.of_this_process().file)  # type: ignore[union-attr]
    (back,), _ = codec.decode(codec.encode(((InScript("me", 1),), {})))
    assert back == InScript("me", 1)


def test_where_modules_are_looked_for(
    tmp_path: Path,
    script: MainScript,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", f"{other}::here:{here}")
    assert _search_path() == list(map(str, [tmp_path, other, here / "here", here]))
    monkeypatch.delenv("PYTHONPATH")
    module = MainScript(script.file, "package", ())
    monkeypatch.setattr(MainScript, "of_this_process", classmethod(lambda cls: module))
    assert daemon_api._search_path() == [str(here)]
    here.chmod(0o1777)
    assert daemon_api._search_path() == []
    assert f"{here} is not searched for modules, since other users may write" in caplog.text
