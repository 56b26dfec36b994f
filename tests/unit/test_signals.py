"""Which errors are a Ctrl-C's doing."""

from __future__ import annotations

import sys
from traceback import extract_tb
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from creamas_sc.errors import BadValue, SlaveLost
from creamas_sc.runtime.signals import (
    _is_interrupt,
    _report_uncaught,
    install_signal_handling,
)
from creamas_sc.runtime.validation import check_seconds


def raised(source: str, filename: str, handled: BaseException | None) -> BaseException:
    """What ``source`` raises, as code of that file, in the middle of handling something."""
    try:
        try:
            if handled is not None:
                raise handled
        finally:
            exec(compile(source, filename, "exec"))
    except BaseException as error:
        return error
    raise AssertionError(f"{source} raised nothing")


@pytest.mark.parametrize(
    ("source", "filename", "handled", "expected"),
    [
        ("raise KeyboardInterrupt", "mine.py", None, True),
        ("raise RuntimeError", anyio.__file__, KeyboardInterrupt(), True),
        ("raise RuntimeError", "mine.py", KeyboardInterrupt(), False),
        ("raise ValueError", anyio.__file__, KeyboardInterrupt(), False),
        ("raise RuntimeError", anyio.__file__, ValueError(), False),
        ("raise RuntimeError", anyio.__file__, None, False),
    ],
)
def test_what_a_ctrl_c_led_to(
    source: str, filename: str, handled: BaseException | None, expected: bool
) -> None:
    error = raised(source, filename, handled)
    assert _is_interrupt(error) is expected
    group = BaseExceptionGroup("", [error, KeyboardInterrupt()])
    assert _is_interrupt(group) is expected


@pytest.mark.parametrize(
    ("beside", "expected"),
    [(SlaveLost("gone"), True), (ValueError(), False), (ExceptionGroup("", [ValueError()]), False)],
)
def test_what_a_ctrl_c_in_a_task_did_to_others(beside: Exception, expected: bool) -> None:
    struck = BaseExceptionGroup("of the task", [KeyboardInterrupt()])
    assert _is_interrupt(BaseExceptionGroup("", [struck, beside])) is expected
    assert not _is_interrupt(ExceptionGroup("", [beside]))


def test_one_of_our_errors_is_printed_shortly_even_in_a_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = ExceptionGroup("of a nursery", [SlaveLost("slave 1 is gone")])
    _report_uncaught(type(group), group, None)
    assert capsys.readouterr().err == "creamas_sc.errors.SlaveLost: slave 1 is gone\n"


class Shell:
    """What is used of IPython's shell."""

    def __init__(self) -> None:
        self.custom_exceptions: tuple[type[BaseException], ...] = ()
        self.shown: list[Any] = []

    def set_custom_exc(self, kinds: tuple[type[BaseException], ...], handler: Any) -> None:
        self.custom_exceptions = kinds
        self.handler = handler

    def showtraceback(self, exc_tuple: Any, tb_offset: int) -> None:
        assert tb_offset == 0
        self.shown.append(exc_tuple)


def test_in_a_notebook_only_the_cells_lines_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    ipython = SimpleNamespace(__file__="/IPython/__init__.py", get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    install_signal_handling()
    assert shell.custom_exceptions == (Exception,)
    cell = compile("call()", "a cell", "exec")
    try:
        exec(compile("exec(cell)", "/IPython/shell.py", "exec"), {"cell": cell, "call": refuse})
    except BadValue as error:
        shell.handler(shell, type(error), error, error.__traceback__, tb_offset=None)
    ((kind, shown, trace),) = shell.shown
    assert kind is BadValue
    assert [frame.filename for frame in extract_tb(trace)][-2:] == ["a cell", __file__]
    assert trace is shown.__traceback__


def refuse() -> None:
    check_seconds(-1)


def test_a_users_own_way_to_show_errors_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    shell.custom_exceptions = (ValueError,)
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    install_signal_handling()
    assert shell.custom_exceptions == (ValueError,)
