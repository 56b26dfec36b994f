"""Which errors are a Ctrl-C's doing."""

from __future__ import annotations

import anyio
import pytest

from creamas_sc.endings import _is_interrupt


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
