"""What the zygote imports for all slaves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from supervisor.tree.zygote import _import_if_there

THREADED = """
import threading
over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
"""


def test_a_module_that_starts_threads_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "with_threads.py").write_text(THREADED)
    monkeypatch.syspath_prepend(tmp_path)
    _import_if_there("with_threads")
    module = sys.modules.pop("with_threads")
    module.over.set()
    module.thread.join()
    expected = "with_threads starts threads, which slaves will lack: leave it out of prestart()"
    assert capfd.readouterr().err == f"creamas_sc: {expected}\n"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_a_module_that_does_not_import_is_named(
    code: str,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    _import_if_there("broken")
    _import_if_there("not_there")
    assert capfd.readouterr().err == f"creamas_sc: broken does not import: {error}\n"
