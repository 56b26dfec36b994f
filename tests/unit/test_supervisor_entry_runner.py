"""What runs in an actor's process, with a list in place of tractor's stream."""

from __future__ import annotations

import os
import re
import sys
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from creamas_sc.errors import LoadError, StartError
from supervisor.actors import entry_runner
from supervisor.tree import orphans
from tests.support import entries
from tests.support.trees import order


class OwnError(StartError):
    """A user's subclass of our error."""


class FakeStream:
    """Notes what an actor sends; asks it to stop with each of ``stops``."""

    def __init__(self, *stops: bytes) -> None:
        self.sent: list[list[Any]] = []
        self._stops = [["stop", payload] for payload in stops]

    async def send(self, message: list[Any]) -> None:
        self.sent.append(message)

    async def receive(self) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if not self._stops:
            raise trio.EndOfChannel
        return self._stops.pop(0)


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    environ, path, cwd = dict(os.environ), list(sys.path), os.getcwd()
    yield
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:] = path
    os.chdir(cwd)


async def test_an_entry_is_run_and_asked_to_stop_and_its_answer_kept() -> None:
    stream = FakeStream(b"now", b"again")
    assert await entry_runner.run_entry(order("a", "obey", b"spec"), stream) == (
        b"now stopped",
        None,
        "",
    )
    assert stream.sent == [["ready", b"spec ready"]]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (b"value", "ValueError: said why"),
        (b"exit", "SystemExit: said why"),
        (b"interrupt", "KeyboardInterrupt: said why"),
    ],
)
async def test_nothing_that_an_entry_raises_escapes(spec: bytes, text: str) -> None:
    outcome = await entry_runner.run_entry(order("a", "fail_to_start", spec), FakeStream())
    assert outcome.error == text
    assert "fail_to_start" in outcome.traceback


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"entry": "no.such.module:f"},
            "module 'no.such.module' of 'no.such.module:f' does not import: ModuleNot",
        ),
        (
            {"entry": f"{entries.__name__}:nothing"},
            "'tests.support.entries:nothing': module 'tests.support.entries' has no 'nothing'",
        ),
        ({"entry": f"{entries.__name__}:os"}, "TypeError: "),
        ({"cwd": "/no/such/folder"}, "FileNotFoundError: "),
    ],
)
async def test_an_order_that_cannot_be_followed_fails_alone(
    change: dict[str, str], text: str
) -> None:
    changed: Any = {**order("a", "obey"), **change}
    outcome = await entry_runner.run_entry(changed, FakeStream(b""))
    assert outcome.error is not None
    assert outcome.error.startswith(text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StartError("slave-0 failed to start: no colour"), "slave-0 failed to start: no colour"),
        (LoadError("no class"), "no class"),
        (StartError(), "creamas_sc.errors.StartError"),
        (OwnError("of the user's"), f"{__name__}.OwnError: of the user's"),
        (ValueError("x" * 10_000_000), None),
    ],
)
async def test_the_text_of_an_error_is_bounded(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str | None
) -> None:
    async def fail(spec: bytes, control: entry_runner.Control) -> bytes:
        raise error

    monkeypatch.setattr(entries, "obey", fail)
    outcome = await entry_runner.run_entry(order("a", "obey"), FakeStream())
    assert outcome.error is not None
    if text is None:
        assert re.fullmatch(r"ValueError: x+ \[\.\.\. \d+ characters \.\.\.\] x+", outcome.error)
    else:
        assert outcome.error == text
    assert len(outcome.error) < 2100
    assert len(outcome.traceback) < 21_000
    assert outcome.traceback.startswith("Traceback")


class Writes(UserDict[str, str]):
    """Notes which variables are written, or removed."""

    def __init__(self, variables: dict[str, str]) -> None:
        super().__init__(variables)
        self.written: set[str] = set()

    def __setitem__(self, name: str, value: str) -> None:
        self.data[name] = value
        if "written" in vars(self):
            self.written.add(name)

    def __delitem__(self, name: str) -> None:
        del self.data[name]
        self.written.add(name)


async def test_variables_that_are_as_they_should_be_are_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ = Writes({"same": "1", "other": "2", "gone": "3", orphans.VARIABLE: "record"})
    monkeypatch.setattr(os, "environ", environ)
    ordered = order("a", "obey")
    ordered["environ"] = {"same": "1", "other": "4", "new": "5"}
    await entry_runner.run_entry(ordered, FakeStream(b"now"))
    assert environ == {**ordered["environ"], orphans.VARIABLE: "record"}
    assert environ.written == {"other", "gone", "new"}


async def test_cancellation_passes_through() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await entry_runner.run_entry(order("a", "never_ready"), FakeStream())
    assert scope.cancelled_caught


async def test_cancellation_that_comes_with_a_failure_is_caught() -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                entry_runner.run_entry, order("a", "fail_when_cancelled"), FakeStream()
            )
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught


async def test_ready_is_reported_once() -> None:
    control = entry_runner.Control(FakeStream())
    await control.ready(b"")
    with pytest.raises(RuntimeError, match="already"):
        await control.ready(b"")


async def test_an_entry_sees_the_descriptors_it_inherited() -> None:
    stream = FakeStream(b"")
    await entry_runner.run_entry(order("a", "tell_descriptors"), stream, [7, 8])
    assert stream.sent == [["ready", b"[7, 8]"]]
