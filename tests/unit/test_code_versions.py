"""All processes of a simulation load the version of a file that the first of them has loaded."""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import py_compile
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from creamas_sc.errors import AgentError, LoadError
from creamas_sc.runtime import code_versions, loaded_modules
from creamas_sc.runtime.class_loading import load_object
from creamas_sc.runtime.code_versions import CodeVersions, Version, load_from
from tests.support import programs

NAME = "module_of_versions"
LATER = 10**9


class Code:
    """A user's module, and a simulation that loads it."""

    def __init__(self, folder: Path) -> None:
        self.versions = CodeVersions(folder / "simulation")
        self.versions.folder.mkdir()
        self.file = folder / f"{NAME}.py"

    def write(self, text: str) -> None:
        """Write it, at a time of its own, however coarse the clock."""
        before = self.file.stat().st_mtime_ns if self.file.exists() else 10**18
        self.file.write_text(text)
        os.utime(self.file, ns=(before + LATER, before + LATER))

    def load(self) -> Any:
        """Import it as a process would that has not imported it yet."""
        sys.modules.pop(NAME, None)
        importlib.invalidate_caches()
        return importlib.import_module(NAME)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    """In a process that loads modules as a slave does."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(code_versions._Loading, "versions", None)
    monkeypatch.syspath_prepend(tmp_path)
    made = Code(tmp_path)
    load_from(made.versions)
    yield made
    sys.modules.pop(NAME, None)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_changed_file_is_not_loaded(
    code: Code, compiled: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not compiled)
    code.write("version = 1")
    assert code.load().version == 1
    code.write("version = 2")
    with caplog.at_level(logging.WARNING):
        assert code.load().version == 1
    assert f"{code.file} was changed: this simulation runs the version" in caplog.text
    assert code.versions.changed_files() == [str(code.file)]
    with pytest.raises(LoadError, match=r"no 'new'; .*\.py was changed: this simulation runs"):
        load_object(f"{NAME}:new")
    code.file.unlink()
    assert code.versions.changed_files() == [str(code.file)]


def test_an_unchanged_file_is_loaded_in_silence(
    code: Code, caplog: pytest.LogCaptureFixture
) -> None:
    code.write("version = 1")
    code.load()
    code.write("version = 1")  # touched
    with caplog.at_level(logging.WARNING):
        assert code.load().version == 1
    assert not caplog.records
    assert code.versions.changed_files() == []
    with pytest.raises(LoadError, match=r"has no 'new'$"):
        load_object(f"{NAME}:new")


def test_a_file_that_failed_may_be_corrected(code: Code) -> None:
    for wrong in ("1 / 0", "def"):
        code.write(wrong)
        with pytest.raises((ZeroDivisionError, SyntaxError)):
            code.load()
    code.write("version = 3")
    assert code.load().version == 3


def test_a_master_keeps_what_it_has_loaded(code: Code) -> None:
    sys.meta_path.remove(code_versions._Finder)
    code.write("version = 1")
    code.load()
    code.versions.keep_loaded()
    code.write("version = 2")
    code.versions.keep_loaded()
    kept = code.versions.find(str(code.file))
    assert kept is not None
    assert (kept.path, kept.source) == (str(code.file), b"version = 1")
    for installed in (pytest.__file__, logging.__file__, code_versions.__file__):
        assert code.versions.find(installed) is None


def test_a_master_says_what_was_changed_since_it_has_loaded_it(
    code: Code, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(code_versions, "_started_ns", lambda: 10**18)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    sys.meta_path.remove(code_versions._Finder)
    script = ModuleType("__main__")
    script.__file__ = str(code.file.with_name("script.py"))
    monkeypatch.setitem(sys.modules, "__main__", script)
    Path(script.__file__).write_text("1")
    os.utime(script.__file__, ns=(10**18, 10**18))
    for text in ("version = 1", "version = 2"):  # the latter is loaded, after the start
        code.write(text)
    code.load()
    code.versions.keep_loaded()
    assert not caplog.records
    for place in code.versions.folder.iterdir():
        place.unlink()
    code.write("version = 3")
    os.utime(script.__file__, ns=(10**18 + LATER, 10**18 + LATER))
    code.versions.keep_loaded()
    changed = [
        record.getMessage().partition(" was changed after this")[0] for record in caplog.records
    ]
    assert sorted(changed) == sorted([str(code.file), script.__file__])
    code.versions.keep_loaded()
    assert len(caplog.records) == 2


def test_when_this_process_was_started() -> None:
    code = "import time; from creamas_sc.runtime.code_versions import _started_ns; "
    code += "print(_started_ns(), time.time_ns())"
    before = time.time_ns()
    started, then = map(int, programs.run_code(code).stdout.split())
    assert before - 2 * 10**7 <= started < then


def test_two_processes_that_load_two_versions_at_once(code: Code) -> None:
    code.write("version = 1")
    first = Version.of(str(code.file))
    code.write("version = 2")
    code.versions.keep(Version.of(str(code.file)))
    with pytest.raises(LoadError, match=r"\.py was changed while the simulation was loading it"):
        code.versions.keep(first)
    assert [each.name for each in code.versions.folder.iterdir()] == [
        code.versions._place(str(code.file)).name
    ]


@pytest.mark.parametrize("full", ["write", "link"])
def test_a_full_disk_prevents_no_import(
    code: Code, full: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    code.write("version = 1")
    if full == "link":
        monkeypatch.setattr(os, "link", refuse)
    else:
        monkeypatch.setattr(os, "utime", refuse)  # as what was written is flushed before
    assert code.load().version == 1
    assert f"{code.file} cannot be kept for the simulation's other processes" in caplog.text
    assert "No space left on device" in caplog.text
    assert list(code.versions.folder.iterdir()) == []
    code.versions.keep_loaded()  # of a master that starts slaves


def test_a_simulation_that_has_ended(code: Code) -> None:
    code.versions.folder.rmdir()
    code.write("version = 1")
    assert code.load().version == 1
    assert code.versions.changed_files() == []


def test_a_module_is_found_where_its_master_has_loaded_it(code: Code, tmp_path: Path) -> None:
    """Under the name that a loader has given it, along which no folder leads."""
    file = tmp_path / "with spaces" / "agents.py"
    file.parent.mkdir()
    file.write_text("version = 1")
    name = "no_such_package.part.agents"
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    code.versions.keep_loaded()
    del sys.modules[name]
    try:
        with pytest.raises(LoadError, match=r"No module named 'no_such_package\.other'"):
            load_object("no_such_package.other:version")
        assert load_object(f"{name}:version") == 1
        assert importlib.import_module(name).__file__ == str(file)
        assert code.versions.changed_files() == []
        file.write_text("version = 2, changed")
        assert code.versions.changed_files() == [str(file)]
    finally:
        for each in [each for each in sys.modules if each.startswith("no_such_package")]:
            del sys.modules[each]


def test_a_file_in_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("part/__main__.py", "version = 1")
    version = Version.of(f"{archive}/part/__main__.py")
    assert (version.source, version.is_changed) == (b"version = 1", False)
    with pytest.raises(FileNotFoundError, match=r"app.pyz: .*no item named 'other.py'"):
        Version.of(f"{archive}/other.py")
    archive.write_bytes(b"")
    assert version.is_changed
    with pytest.raises(FileNotFoundError, match=r"app.pyz: File is not a zip file"):
        Version.of(f"{archive}/part/__main__.py")


def test_modules_of_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that it has imported, not all that are loaded; installed ones are not looked into."""
    codes = {
        "script_painters": "class Painter: pass",
        "script_society": "from script_painters import Painter\nimport json",
        "script_tools": "def simulate(): pass\nimport script_society",
        "unrelated": "class Other: pass",
    }
    for name, code in codes.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for name in codes:
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    script = ModuleType("__main__")
    exec(
        "from script_tools import simulate\nfrom unittest.mock import Mock\nmock = Mock()",
        vars(script),
    )
    monkeypatch.setitem(sys.modules, "__main__", script)
    found = loaded_modules.modules_of_script()
    assert {"__main__", "script_painters", "script_society", "script_tools", "json"} <= found
    assert not {"unrelated", "json.decoder", "pytest"} & found


def test_nothing_is_loaded_from_where_other_users_may_write(tmp_path: Path) -> None:
    """Another user may make the runtime folder again, once something has removed it."""
    runtime = tmp_path / "runtime"
    versions = CodeVersions(runtime / "environments" / "simulation")
    versions.folder.mkdir(parents=True)
    runtime.chmod(0o700)
    file, other = tmp_path / "module.py", tmp_path / "other.py"
    for each in (file, other):
        each.write_text("before = 1\n")
    versions.keep(Version.of(str(file)))
    versions._note_modules({"module": str(file)})
    file.write_text("after = 1\n")
    assert versions.find(str(file)) is not None
    assert versions.find_module("module") is not None
    assert versions.changed_files() == [str(file)]
    runtime.chmod(0o777)
    there = sorted(versions.folder.iterdir())
    assert versions.find(str(file)) is None
    assert versions.find_module("module") is None
    assert versions.changed_files() == []
    with pytest.raises(PermissionError, match="other users may write there"):
        versions.keep(Version.of(str(other)))
    versions.keep_loaded()
    assert sorted(versions.folder.iterdir()) == there


def test_a_node_loads_nothing_that_others_may_have_put_there(
    code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The folder is the creator's, on another machine; here, any user may have made it.
    monkeypatch.setattr(code_versions._Loading, "node", "node")
    monkeypatch.setattr(sys, "path", sys.path[1:])
    package = tmp_path / NAME
    package.mkdir()
    file = package / "__init__.py"
    file.write_text("WHOSE = 'theirs'")
    compiled = py_compile.compile(str(file))
    assert compiled is not None
    status = file.stat()
    sent = Version(str(file), b"WHOSE = 'master'", status.st_mtime_ns)
    assert len(sent.source) == status.st_size
    code.versions.keep(sent)
    (code.versions.folder / "modules").write_text(json.dumps({NAME: str(file)}))
    (package / "more.py").write_text("")
    assert code.load().WHOSE == "master"
    importlib.import_module(f"{NAME}.more")
    del sys.modules[f"{NAME}.more"]
    package.chmod(0o777)
    assert code.load().WHOSE == "master"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{NAME}.more")


def test_a_module_that_was_sent_is_loaded_on_another_machine(
    code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code.write("version = 1")
    code.load()
    code.versions.keep_loaded()
    files = code.versions.files()
    there = CodeVersions(tmp_path / "there" / "environments" / "simulation")
    there.folder.mkdir(parents=True)
    (tmp_path / "there").chmod(0o700)
    there.take(files)
    assert there.files() == files
    # The machine has no such file, or one of that name elsewhere on its path.
    code.file.unlink()
    code.file = tmp_path / "own" / f"{NAME}.py"
    code.file.parent.mkdir()
    monkeypatch.syspath_prepend(code.file.parent)
    code.write("version = 2")
    load_from(there, "n1")
    assert code.load().version == 1
    assert code_versions.loaded_code()[NAME][0] == str(tmp_path / f"{NAME}.py")
    load_from(there)
    assert code.load().version == 2


def test_what_a_node_lacks_says_what_to_do(code: Code) -> None:
    load_from(code.versions, "n1")
    with pytest.raises(LoadError, match="on the node n1 have what is installed there"):
        load_object("no_such_module:Agent")
    lacking = AgentError.from_exception("tcp://h:1/1", ModuleNotFoundError("no rhymes"))
    assert "no rhymes; slaves on the node n1 have" in lacking.message
