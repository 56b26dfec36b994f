"""Which errors are a Ctrl-C's doing."""

from __future__ import annotations

import anyio
import pytest

from creamas_sc.errors import SlaveLost
from creamas_sc.runtime.signals import _is_interrupt, _report_uncaught


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
