"""What an installation without trio says."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "wanted",
    ["from creamas_sc import Environment", "import creamas_sc.mp", "import creamas_sc.mp.managers"],
)
def test_without_trio(wanted: str) -> None:
    code = f"import sys; sys.modules['trio'] = None; {wanted}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: environments need trio, which this Python lacks: ")
    assert last.endswith("[supervisor]'")


def test_without_trio_artifacts_and_serializers_are_there() -> None:
    code = (
        "import sys; sys.modules['trio'] = None; from creamas_sc import Artifact, MsgPack, expose"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_missing_module_is_named() -> None:
    code = "import sys; sys.modules['msgpack'] = None; import creamas_sc.mp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: import of msgpack" in done.stderr
