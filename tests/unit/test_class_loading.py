"""Names of classes, and a script that is loaded once more."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sniffio
import trio

from creamas_sc.errors import LoadError
from creamas_sc.runtime import class_loading, event_loop
from creamas_sc.runtime.class_loading import (
    SCRIPT_MODULE,
    class_name,
    end_script_load,
    load_class,
    load_object,
    portable_name,
)
from creamas_sc.runtime.main_script import MainScript, adopt_script, adopted_script


class Outer:
    class Inner:
        pass


def function() -> None:
    """Something that can be named."""


# ---- names


class Surprising(type):
    @property
    def surprise(cls) -> type:
        raise SystemExit("a name ran this")


class Careless(metaclass=Surprising):
    class Inner:
        """Found by name."""

    @staticmethod
    def make() -> None:
        """Found by name."""

    @property
    def own(self) -> type:
        raise SystemExit("a name ran this")


careless = Careless()


def test_what_a_class_has_itself() -> None:
    assert load_object(f"{__name__}:Careless.Inner") is Careless.Inner
    assert load_object(f"{__name__}:Careless.make") is Careless.make


@pytest.mark.parametrize("thing", [Outer, Outer.Inner, function, dict, Path])
def test_a_name_leads_back(thing: Any) -> None:
    assert load_object(portable_name(thing)) is thing


def test_the_form_of_a_name() -> None:
    assert class_name(Outer.Inner) == f"{__name__}:Outer.Inner"
    assert portable_name("any.module:Thing") == "any.module:Thing"
    assert load_class(f"{__name__}:Outer") is Outer


@pytest.mark.parametrize("module", ["__main__", "__mp_main__", SCRIPT_MODULE])
def test_a_class_of_the_script_has_one_name_in_all_processes(module: str) -> None:
    assert class_name(type("Mine", (), {"__module__": module})) == "__main__:Mine"


@pytest.mark.parametrize("name", ["", "module", ":Name", "module:", "creamas_sc.Environment"])
def test_what_is_no_name(name: str) -> None:
    for use in (portable_name, load_object, load_class):
        with pytest.raises(LoadError, match=r"'package\.module:Class'"):
            use(name)


def test_what_no_other_process_could_find() -> None:
    class Local:
        pass

    for thing in (Local, lambda: None):
        with pytest.raises(LoadError, match="is defined inside a function"):
            portable_name(thing)
    with pytest.raises(LoadError, match=r"expected a class or .*, got 3"):
        portable_name(3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Thing", "'no_such_module' of 'no_such_module:Thing' does not import: Mod"),
        ("json:Nothing", "module 'json' has no 'Nothing'"),
        ("json:decoder.Nothing.More", "module 'json' has no 'Nothing'"),
        (f"{__name__}:Careless.surprise", "has no 'surprise'"),
        (f"{__name__}:careless.own", "has no 'own'"),
    ],
)
def test_the_message_says_which_part_fails(name: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load_class(name)


def test_a_class_is_asked_for() -> None:
    with pytest.raises(LoadError, match="is not a class but of type function"):
        load_class(f"{__name__}:function")


@pytest.mark.parametrize("error", ["1 / 0", "raise SystemExit(3)", "raise KeyboardInterrupt", ")"])
def test_a_module_that_does_not_import(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_when_imported.py").write_text(error)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LoadError, match=r"'breaks_when_imported' .* does not import: "):
        load_class("breaks_when_imported:Thing")
    assert "breaks_when_imported" not in sys.modules


# ---- the script


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Adopts a text as the script of this process, as a slave does."""

    def adopt(text: str, package: str | None = None) -> None:
        file = tmp_path / "script.py"
        file.write_text(text)
        adopt_script(MainScript(str(file), package, ("script.py", "--option")))

    state = class_loading._Script
    for name in ("module", "loading_thread"):
        monkeypatch.setattr(state, name, None)
    monkeypatch.setattr(state, "ended_at", "")
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    before = adopted_script()
    adopt_script(None)
    yield adopt
    adopt_script(before)
    sys.modules.pop(SCRIPT_MODULE, None)


UNGUARDED = """
import sys
from creamas_sc.runtime.class_loading import end_script_load
loads = getattr(sys, "loads", 0) + 1

class Above:
    name, argv = __name__, list(sys.argv)

try:
    end_script_load()
except Exception:
    pass  # not this script's to catch

class Below:
    pass
"""


def test_a_guard_stays_shut(script: Any) -> None:
    script("class Mine: pass\nif __name__ == '__main__':\n    1 / 0\nclass Below: pass\n")
    assert load_class("__main__:Mine").__module__ == SCRIPT_MODULE
    assert load_class("__main__:Below")
    assert class_name(load_class("__main__:Mine")) == "__main__:Mine"
    assert portable_name(load_class("__main__:Mine")) == "__main__:Mine"


def test_without_a_guard_the_first_call_ends_the_load(script: Any) -> None:
    script(UNGUARDED)
    above = load_class("__main__:Above")
    assert above.name == SCRIPT_MODULE  # type: ignore[attr-defined]
    assert above.argv == ["script.py", "--option"]  # type: ignore[attr-defined]
    assert load_class("__main__:Above") is above
    with pytest.raises(LoadError, match=r"no 'Below' above line 10, its first call .* define the"):
        load_class("__main__:Below")
    end_script_load()  # no load is going on: returns


def test_a_name_that_a_script_lacks(script: Any) -> None:
    script("class Mine: pass\n")
    with pytest.raises(LoadError, match="module '__main__' has no 'Yours'"):
        load_class("__main__:Yours")


@pytest.mark.parametrize("error", ["1 / 0", "raise SystemExit('over')", "def"])
def test_a_script_that_fails_to_load(script: Any, error: str) -> None:
    script(f"class Mine: pass\n{error}\n")
    for _ in range(2):
        with pytest.raises(LoadError, match=r"loading the script .*script.py failed: "):
            load_class("__main__:Mine")
    assert SCRIPT_MODULE not in sys.modules
    script("class Mine: pass\n")
    assert load_class("__main__:Mine")


@pytest.mark.parametrize(
    "start", ["trio.run(main)", "asyncio.run(main())", "anyio.run(main, backend='trio')"]
)
async def test_an_unguarded_script_may_run_a_loop(
    start: str, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_loop, "_background", None)  # as in a slave
    script(
        "import anyio, asyncio, trio\n"
        "from creamas_sc.runtime.event_loop import background_loop\n"
        "class Mine: pass\n"
        "async def main():\n"
        "    async with anyio.create_task_group() as tasks:\n"
        "        background_loop()\n"
        f"{start}\n"
        "1 / 0\n"
    )
    task = trio.lowlevel.current_task()
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    assert load_class("__main__:Mine")
    assert trio.lowlevel.current_task() is task
    assert sniffio.current_async_library() == "trio"
    assert signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False) == wakeup_fd
    await trio.lowlevel.checkpoint()


async def test_a_script_may_handle_signals(script: Any) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    script("import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\nclass Mine: pass\n")
    try:
        assert load_class("__main__:Mine")
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("end", ["sys.exit(0)", "1 / 0", "pass"])
def test_a_process_that_the_script_forks_ends_with_the_load(end: str, script: Any) -> None:
    script(
        "import os, sys\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        f"    {end}\n"
        "else:\n"
        "    class Mine: ended = os.waitpid(pid, 0) == (pid, 0)\n"
    )
    assert load_class("__main__:Mine").ended  # type: ignore[attr-defined]


async def test_what_runs_a_coroutine_ends_the_load(script: Any) -> None:
    script("from creamas_sc import run\nclass Mine: pass\nasync def main(): pass\nrun(main())\n")
    async with event_loop.adopt_running_loop():  # as in a slave
        assert load_class("__main__:Mine")


def test_the_script_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "main.py"
    file.touch()
    main = ModuleType("__main__")
    main.__file__, main.__package__ = str(file), "pkg"
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["main.py", "x"])
    message = MainScript.of_this_process()
    assert message == MainScript(str(file), "pkg", ("main.py", "x"))
    assert MainScript(*message) == message


@pytest.mark.parametrize("file", [None, "<stdin>", "/no/such/file.py"])
def test_a_class_of_a_notebook_cannot_travel(
    file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    main.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert MainScript.of_this_process() is None
    cell_class = type("Cell", (), {"__module__": "__main__"})
    for thing in (cell_class, "__main__:Cell"):
        with pytest.raises(LoadError, match=r"notebook, .* put it into a file"):
            portable_name(thing)
