"""Puts tractor into what is built of this project, as the folder ``creamas_sc_carried``.

tractor 0.1.0a5, its latest release, names a git address in its metadata, which pip refuses from
26.3 on: a package that depends on it cannot be installed. So what is built here carries it,
unchanged and with its license, which is ours too. uv fetches its source from the package index,
checks the hash, and builds it with setuptools.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from uv import find_uv_bin

REQUIREMENT = """\
tractor==0.1.0a5 \
--hash=sha256:20390371dff39659dbe4d2a4088a27a571570cedd23fb5714bc033c9e883eea1
"""
FOLDER = "creamas_sc_carried"


class CarryTractor(BuildHookInterface[Any]):
    """Fetches tractor when a wheel is built, for an editable installation too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add tractor to the files of the wheel."""
        self._folder = TemporaryDirectory()
        fetched = Path(self._folder.name)
        _fetch(fetched)
        (package,) = fetched.glob("tractor")
        (license_file,) = fetched.glob("tractor-*.dist-info/**/LICENSE")
        included = "force_include_editable" if version == "editable" else "force_include"
        build_data[included] |= {
            str(package): f"{FOLDER}/tractor",
            str(license_file): f"{FOLDER}/tractor/LICENSE",
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was fetched."""
        self._folder.cleanup()


def _fetch(target: Path) -> None:
    options = ["--quiet", "--no-deps", "--require-hashes", "--requirements", "-"]
    place = ["--python", sys.executable, "--target", str(target)]
    done = subprocess.run(
        [find_uv_bin(), "pip", "install", *options, *place],
        input=REQUIREMENT,
        text=True,
        cwd=target,  # no settings of the project that is being built
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(
            "creamas-sc carries tractor 0.1.0a5, which uv could not get (see above). If your "
            "packages come from an index of your own, set UV_DEFAULT_INDEX to its address."
        )
