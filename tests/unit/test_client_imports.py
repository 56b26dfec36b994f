"""What the clients need: anyio and msgpack, and of these the blocking one only msgpack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import run_code, run_script


def run(code: str) -> str:
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_trio() -> None:
    run("""
import sys
sys.modules.update(dict.fromkeys(["trio", "tractor", "structlog", "cyclopts", "rich", "numpy"]))
from creamas_sc import Artifact, MsgPack, Proxy, client, expose
from creamas_sc.reports import StopReport, SlaveReceipt
from creamas_sc.supervisor_client.spec import pack, unpack
for name in client.__all__:
    assert getattr(client, name)
report = unpack(pack(StopReport([], saved=Artifact("maker", [1, 2]))))
assert report.saved == Artifact("maker", [1, 2])
""")


def test_a_script_that_may_have_slaves_needs_no_trio_for_its_client(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
import sys
sys.modules.update(dict.fromkeys(["trio", "tractor"]))
from creamas_sc.client import connect_sync
try:
    from creamas_sc import MultiEnvironment
except ImportError as error:
    print(error)
""")
    done = run_script(script)
    assert done.returncode == 0
    assert "trio" in done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("creamas_sc.client", {"anyio", "asyncio", "creamas_sc.client.sync_client"}),
        (
            "creamas_sc.client.sync_client",
            {"anyio", "asyncio", "creamas_sc.client.async_client", "secrets", "tempfile", "uuid"},
        ),
        ("creamas_sc.client.async_client", {"creamas_sc.client.sync_client", "trio"}),
    ],
)
def test_an_import_pulls_in_no_more_than_needed(module: str, absent: set[str]) -> None:
    assert run(f"import sys, {module}; print(sorted({absent} & set(sys.modules)))") == "[]\n"


def test_no_other_name() -> None:
    from creamas_sc import client

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        client.Nothing  # noqa: B018
