"""What users' code raises, says or returns, of any kind and length, ends nothing and is bounded."""

from __future__ import annotations

import linecache
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import trio

from creamas_sc import Artifact, CreativeAgent, Environment, EnvManager, expose
from creamas_sc.errors import (
    GROUP_LENGTH,
    AgentError,
    AgentErrors,
    CreamasError,
    agent_errors,
    from_wire,
    to_wire,
)
from creamas_sc.foreign import (
    TEXT_LENGTH,
    TRACEBACK_LENGTH,
    cut_traceback,
    cut_tracebacks,
    printable,
    shorten,
    summary_of,
    text_of,
    traceback_of,
)
from creamas_sc.rpc import step_replies
from creamas_sc.runtime.event_loop import adopt_running_loop
from creamas_sc.wire import codec

MIB = 1 << 20


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("in __str__")


class OddText(str):
    """Has no length and no slices, and does not travel as it is."""

    __slots__ = ()

    def __len__(self) -> int:
        raise SystemExit("in __len__")


class TextIsOdd(Exception):
    def __str__(self) -> str:
        return OddText("odd")


def raised(error: BaseException, causes: int = 0) -> BaseException:
    """The error with a traceback, and with a chain of causes."""
    try:
        try:
            if causes:
                raise raised(ValueError("cause " * 200), causes - 1)
        finally:
            raise error
    except BaseException as caught:
        return caught


# ---- texts


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * MIB),
        ExceptionGroup("x" * MIB, [ValueError("y" * MIB)] * 9),
        raised(ValueError("short"), causes=300),
        SyntaxError("x" * MIB, ("file", 1, 1, "y" * MIB)),
        CreamasError("x" * MIB),
    ],
    ids=["long", "group", "causes", "syntax", "creamas"],
)
def test_texts_of_errors_are_bounded(error: BaseException) -> None:
    for text in (text_of(error), summary_of(error)):
        assert len(text) < TEXT_LENGTH + 100
    assert len(traceback_of(error)) < TRACEBACK_LENGTH + 100
    described = AgentError.from_exception("tcp://localhost:1/1", error)
    assert len(str(described)) < TEXT_LENGTH + 200
    assert len(codec.Codec().encode(to_wire(described)).body) < TEXT_LENGTH + TRACEBACK_LENGTH + 999
    assert len(codec.Codec().encode(to_wire(error)).body) < TEXT_LENGTH + 999


def test_a_short_text_stays_as_it_is() -> None:
    error = raised(ValueError("one\ntwo \x1b[1m"))
    described = AgentError.from_exception("tcp://localhost:1/1", error)
    received = from_wire(codec.Codec().decode(codec.Codec().encode(to_wire(described))))
    assert isinstance(received, AgentError)
    assert str(received) == str(described) == "ValueError in tcp://localhost:1/1: one\ntwo \x1b[1m"
    assert "raise error" in received.traceback_text


def noted(text: str) -> Exception:
    error = ValueError("noted")
    error.add_note(text)
    return error


LINES = "x\n" * (4 * MIB)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(LINES),
        ExceptionGroup("g", [ValueError(LINES)] * 3),
        noted(LINES),
        SyntaxError(LINES, ("file", 1, 1, LINES)),
        SyntaxError("bad", ("file", 1, 12 * MIB, "1 + " * (4 * MIB), 1, 13 * MIB)),
    ],
    ids=["text", "group", "note", "message", "code"],
)
def test_many_lines_take_no_time(error: BaseException) -> None:
    error = raised(error)
    began = time.process_time()
    AgentError.from_exception("tcp://localhost:1/1", error)
    summary_of(error)
    assert time.process_time() - began < 0.5


def test_a_text_of_an_odd_kind_does_not_hide_where_it_was_raised() -> None:
    assert "raise error" in traceback_of(raised(TextIsOdd()))


@pytest.mark.parametrize("error", [Unprintable(), TextIsOdd()])
def test_an_error_that_cannot_be_printed(error: Exception) -> None:
    described = AgentError.from_exception("tcp://localhost:1/1", raised(error))
    assert described.message == "<exception str() failed>"
    assert "raise error" in described.traceback_text or "cannot be" in described.traceback_text
    codec.Codec().encode(to_wire(described))
    codec.Codec().encode(to_wire(error))


@pytest.mark.slow
def test_many_long_errors_are_bounded_together() -> None:
    error = raised(ValueError("x" * MIB))
    failures = {f"tcp://localhost:1/{n}": error for n in range(GROUP_LENGTH // TEXT_LENGTH)}
    group = agent_errors("failed", failures, [])
    assert list(group.failures) == list(failures)
    assert len(codec.Codec().encode(to_wire(group)).body) < GROUP_LENGTH + 400 * len(failures)
    first, *_, last = group.failures.values()
    assert "raise error" in first.traceback_text
    assert last.type_name == "ValueError"
    assert len(last.message) < 300
    assert last.traceback_text == ""
    again = agent_errors("failed", group.failures, [])  # as the master's, of several slaves
    assert list(again.failures) == list(failures)
    assert again.failures[first.address] == first


# ---- tracebacks


def within(*frames: tuple[str, str]) -> Exception:
    """What the last of nested calls raises: of each call its file, and code that makes the next."""
    call: Any = None
    for file, source in reversed(frames):
        names = {"call": call, "CreamasError": CreamasError}
        exec(compile("def run():\n" + indent(source, "  "), file, "exec"), names)
        call = names["run"]
    try:
        call()
    except Exception as error:
        # Without the frame of this function.
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    raise AssertionError("nothing was raised")


def files(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


OURS, TRIO = codec.__file__, trio.__file__


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ((OURS, "raise CreamasError('no')"), []),
        ((OURS, "raise TypeError('no')"), []),
        ((OURS, "1 / 0"), [OURS]),
        ((TRIO, "raise RuntimeError('no')"), [TRIO]),
        (("theirs.py", "1 / 0"), ["theirs.py"]),
        (("theirs.py", "raise CreamasError('no')"), ["theirs.py"]),
    ],
)
def test_only_frames_of_the_user_are_left(last: tuple[str, str], shown: list[str]) -> None:
    mine, between = ("mine.py", "1\ncall()"), (OURS, "call()")
    error = within(mine, between, (TRIO, "call()"), ("more.py", "call()"), between, last)
    cut_tracebacks(error)
    assert files(error) == ["mine.py", "more.py", *shown]
    assert traceback.extract_tb(error.__traceback__)[0].lineno == 3


def test_causes_are_cut_too_and_left_out_where_they_add_nothing() -> None:
    caught = "try:\n  call()\nexcept Exception as e:\n  raise CreamasError('outer') from e"
    inner = (OURS, "raise CreamasError('inner')")
    error = within(("mine.py", "call()"), (OURS, caught), inner)
    cut_tracebacks(error)
    assert (error.__cause__, error.__context__) == (None, None)
    error = within(("mine.py", "call()"), (OURS, caught), ("theirs.py", "call()"), inner)
    cut_tracebacks(error)
    assert error.__cause__ is not None
    assert files(error.__cause__) == ["theirs.py"]
    group = ExceptionGroup("both", [within((OURS, "call()"), ("mine.py", "1 / 0"))])
    cut_tracebacks(group)
    assert files(group.exceptions[0]) == ["mine.py"]


def test_an_agents_traceback_has_only_its_own_frames() -> None:
    error = within((OURS, "call()"), ("mine.py", "call()"), (OURS, "raise CreamasError('no')"))
    described = AgentError.from_exception("tcp://localhost:1/1", error)
    assert 'File "mine.py"' in described.traceback_text
    assert OURS not in described.traceback_text
    silent = within((OURS, "call()"), (OURS, "raise CreamasError('no')"))
    described = AgentError.from_exception("tcp://localhost:1/1", silent)
    assert not hasattr(described, "__notes__")


def test_what_is_shown_controls_no_terminal() -> None:
    text = "title \x1b]0;x\x07 clear \x9b2J line\r\n2024 INFO all is well\u2028 \u202eback \x7f"
    assert printable(text) == (
        r"title \x1b]0;x\x07 clear \x9b2J line\r\n2024 INFO all is well\u2028 \u202eback \x7f"
    )
    assert printable("Äpfel 🎨 日本 \\ '") == "Äpfel 🎨 日本 \\ '"


def test_a_shortened_text_can_be_encoded() -> None:
    assert shorten("a\udc80b") == r"a\udc80b"
    assert shorten("x" * 50 + "y" * 50, 10) == "xxxxx [... 90 characters ...] yyyyy"


# ---- user code at the other end of a connection


class Refuses(Artifact):
    def _wire_state_(self) -> dict[str, Any]:
        raise SystemExit("in _wire_state_")


class Arrives(Artifact):
    @classmethod
    def _from_wire_state_(cls, state: Any) -> Any:
        raise SystemExit("in _from_wire_state_")


def exits(_: Any) -> Any:
    raise SystemExit("in __class__")


NoClass = type("NoClass", (), {"__class__": property(exits)})


class NoAttributes:
    def __getattr__(self, name: str) -> Any:
        raise SystemExit("in __getattr__")


class Awaited:
    def __await__(self) -> Any:
        raise SystemExit("in __await__")


class Odd(CreativeAgent):
    """Its act and its plain method do what ``what`` says."""

    def __init__(self, environment: Environment, what: Callable[[Odd], Any]) -> None:
        super().__init__(environment)
        self.what = what

    @expose
    async def act(self) -> Any:
        return self.what(self)

    @expose
    def plain(self) -> Any:
        return self.what(self)


def raises(kind: type[BaseException], *args: Any) -> Callable[[Odd], Any]:
    def raise_it(_: Odd) -> Any:
        raise kind(*args)

    return raise_it


@asynccontextmanager
async def society(*what: Callable[[Odd], Any]) -> AsyncIterator[Any]:
    """An environment with an agent for each of ``what``, and proxies of these, its manager first.

    The proxies belong to another environment.
    """
    with trio.fail_after(60):
        async with adopt_running_loop():
            there, here = Environment(("localhost", 0)), Environment(("localhost", 0))
            await there.open(EnvManager)
            await here.open()
            for each in what:
                Odd(there, each)
            try:
                agents = there.get_agents(include_manager=True)
                yield there, [await here.connect(addr) for addr in agents]
            finally:
                await here.close(as_coro=True)
                await there.close(as_coro=True)


async def test_long_errors_of_many_agents_arrive() -> None:
    fails = raises(ValueError, "x" * MIB)
    async with society(*[fails] * 260) as (_, (manager, *agents)):
        with pytest.raises(AgentErrors) as caught:
            await manager.trigger_all()
        assert list(caught.value.failures) == [agent.addr for agent in agents]
        assert await manager.is_ready()


@pytest.mark.parametrize(
    "what",
    [
        raises(Unprintable),
        raises(TextIsOdd),
        lambda agent: Refuses(agent, 1),
        lambda agent: NoClass(),
        lambda agent: NoAttributes(),
        lambda agent: Awaited(),
    ],
    ids=["__str__", "odd text", "_wire_state_", "__class__", "__getattr__", "__await__"],
)
async def test_what_user_code_raises_is_its_agents_error(what: Callable[[Odd], Any]) -> None:
    async with society(what, lambda agent: 7) as (_, (manager, odd, well)):
        for call in (odd.act, odd.plain):
            with pytest.raises(AgentError, match=odd.addr):
                await call()
        with pytest.raises(AgentErrors) as caught:
            await manager.trigger_all()
        assert list(caught.value.failures) == [odd.addr]
        assert caught.value.results == [7]
        assert await well.act() == 7


async def test_what_raises_as_it_arrives_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with society(lambda agent: Arrives(agent, 1)) as (there, (manager, odd)):
        with pytest.raises(CreamasError, match="_from_wire_state_ failed: SystemExit"):
            await odd.plain()
        # An argument, which the other end decodes; and an event, which has no answer.
        with pytest.raises(CreamasError, match="_from_wire_state_ failed: SystemExit"):
            await odd.evaluate(Arrives("name", 1))
        link = next(iter(there.network.endpoint._links.values()))
        there.network.steps.master = link
        there.network.publish(Arrives("name", 1))
        assert await manager.is_ready()
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


# ---- what is too large fails alone


async def test_what_is_too_large_fails_by_its_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 2 * MIB)
    huge = bytes(2 * MIB + 1)
    async with society(
        lambda agent: 1, lambda agent: huge, lambda agent: agent.publish(Artifact(agent, huge))
    ) as (there, (manager, _, returns, publishes)):
        there.network.steps.master = next(iter(there.network.endpoint._links.values()))
        with pytest.raises(AgentErrors) as caught:
            await manager.trigger_all()
        assert caught.value.results == [1]
        failures = caught.value.failures
        assert set(failures) == {returns.addr, publishes.addr}
        assert "the result of act: 2,097,15" in failures[returns.addr].message
        assert "artifact: 2,097," in failures[publishes.addr].message
        assert "over the limit of 2,097,152" in failures[publishes.addr].message
        with pytest.raises(AgentError, match=f"{returns.addr}: the reply of plain: 2,097,15"):
            await returns.plain()


async def test_results_that_are_too_large_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 4 * MIB)
    monkeypatch.setattr(step_replies, "MAX_RESULTS_BYTES", 3 * MIB)
    large = bytes(2 * MIB - 100)
    async with society(
        lambda agent: large, lambda agent: large, lambda agent: large, lambda agent: 4
    ) as (_, (manager, _, second, third, _)):
        with pytest.raises(AgentErrors, match="failed to act") as caught:
            await manager.trigger_all()
        assert caught.value.results == [large, 4]
        assert list(caught.value.failures) == [second.addr, third.addr]
        assert "publish artifacts, or return less" in caught.value.failures[third.addr].message


def test_no_lines_of_files_in_the_working_folder_are_shown_as_those_of_compiled_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These give relative paths; another user may have put a file there, or a pipe that blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(linecache, "cache", {})
    (tmp_path / "compiled.pyx").write_text("what another user wrote\n")
    fail = compile("raise ValueError('within')", "compiled.pyx", "exec")
    error = RuntimeError("without")
    with pytest.raises(ValueError, match="within") as caught:
        exec(fail, {})
    error.__cause__ = caught.value
    shown = traceback_of(error)
    assert 'File "compiled.pyx", line 1' in shown
    assert "exec(fail, {})" in shown
    assert "another user" not in shown


def test_a_frame_without_a_line_is_kept() -> None:
    code = compile("1 / 0", "/users/script.py", "exec").replace(co_linetable=b"")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(code)
    cut_traceback(caught.value, (str(Path(__file__).parent),))
    trace = caught.value.__traceback__
    assert trace is not None
    assert trace.tb_frame.f_code is code
