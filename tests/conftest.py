"""What every test runs under: local calls through the codec, and a check that nothing is left."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import adopt_orphans, reap_orphan

# Before anything of the project is imported: calls within an environment pass through the codec,
# so that what they carry could travel.
os.environ["CREAMAS_CHECK_LOCAL"] = "1"
# Hundreds of processes are started: each would compile the project again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell's background jobs inherit a Ctrl-C that is ignored; scripts under test must get theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What each worker makes as it collects all tests stays: it need not be searched again and again.
gc.disable()

LEFT_SECONDS = 2.0
# Tests whose ids begin like this go to one worker, as they share what takes long to start, or the
# quickstart's ports. All others may run beside each other.
TOGETHER = {
    "tests/browser/": "the browser",
    "tests/client/": "the clients' daemon",
    "tests/integration/test_command_line.py": "the command line's daemon",
    "tests/integration/test_daemon_listener.py": "the listener's daemon",
    "tests/integration/test_daemon_simulations.py": "the simulations' daemon",
    "tests/integration/test_simulation_host_daemon.py": "the hosts' daemon",
    "tests/integration/test_examples.py::test_the_quickstart": "the quickstart",
    "tests/integration/test_packaging.py": "the quickstart",
    "tests/property/": "the constants that hypothesis reads from all sources",
}


@pytest.hookimpl(optionalhook=True)  # the client's tests run without xdist too
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal tests out to the workers one by one, in the order of folders: short ones come last."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    config.option.loadscopereorder = False  # it would begin with the largest files, of unit tests
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _share
    return scheduling


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes one worker longest first."""
    items.sort(key=lambda item: _share(item.nodeid) not in TOGETHER.values())


def _share(nodeid: str) -> str:
    if nodeid.startswith("tests/unit/"):
        return nodeid.partition("::")[0]
    return next((share for start, share in TOGETHER.items() if nodeid.startswith(start)), nodeid)


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A runtime folder of the tests' own; orphans of any test become this process's children."""
    gc.freeze()  # all tests are imported: `nothing_left` need not search that again and again
    gc.enable()
    folder = tmp_path_factory.mktemp("runtime", numbered=True)
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    adopt_orphans()
    try:
        from creamas_sc.runtime.event_loop import background_loop
    except ImportError:  # the client's tests run without trio
        yield
        return
    from creamas_sc.runtime import installation

    # The tests' own files stay as they are: no simulation need copy all of them.
    installation._OURS += (str(Path(__file__).parent) + os.sep,)
    background_loop()  # its descriptors and thread stay until the end, and are not a leak
    yield


@pytest.fixture(autouse=True)
def nothing_left(_surroundings: None) -> Iterator[None]:
    """Fail a test that leaves a process, a descriptor or a task of the background loop behind."""
    before = _held()
    yield
    if _held() <= before:
        return
    deadline = time.monotonic() + LEFT_SECONDS
    while (left := _held() - before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)  # a process that was killed needs a moment to end
    assert not left, f"left behind: {sorted(map(_describe, left))}"


# What a test may leave: "process" and pid, "descriptor" and what it leads to, "task" and its name.
Held = tuple[str, int, str]


def _held() -> set[Held]:
    """What this process holds now. Called twice for each test, so it builds no texts or paths."""
    return {*_children(), *_descriptors(), *_background_tasks()}


def _descriptors() -> Iterator[Held]:
    for number in os.listdir("/proc/self/fd"):
        try:
            yield "descriptor", int(number), os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the listing's own
            continue


def _children() -> Iterator[Held]:
    """This process's children; orphans of killed scripts that have ended are reaped."""
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                pids = file.read().split()
        except OSError:  # the thread has ended
            continue
        for pid in map(int, pids):
            if not reap_orphan(pid):
                yield "process", pid, ""


def _background_tasks() -> Iterator[Held]:
    module = sys.modules.get("creamas_sc.runtime.event_loop")
    loop = None if module is None else module._background
    if loop is not None:
        for task in list(loop.nursery.child_tasks):
            yield "task", id(task), task.name


def _describe(held: Held) -> str:
    kind, number, name = held
    if kind == "process":
        with suppress(OSError):
            name = Path(f"/proc/{number}/comm").read_text().strip()
    return f"{kind} {number}: {name}"
