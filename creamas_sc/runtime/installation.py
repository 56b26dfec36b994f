"""What is installed, and what an installation lacks for simulations and how to get it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# The folder, beside the packages, in which a built creamas-sc carries tractor.
CARRIED = "creamas_sc_carried"
# The package of the supervisor, beside this one: a user's module may have its name.
SUPERVISOR = Path(__file__).parents[2] / "supervisor"
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_OURS: tuple[str, ...] = (_PACKAGES + "creamas_sc" + os.sep, _PACKAGES + "supervisor" + os.sep)


def is_users(path: str) -> bool:
    """Whether the file at ``path`` is the user's code, not installed with Python or a package."""
    return not path.startswith((_STANDARD_LIBRARY, *_OURS)) and not _INSTALLED & set(
        path.split(os.sep)
    )


def check_installed(module: str) -> None:
    """Check that a module comes with Python or an installed package; nothing is imported.

    Raises:
        ImportError: There is none of that name.
        ValueError: It is the user's own.
    """
    package = module.partition(".")[0]
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"there is no module {package!r}", name=package)
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    if any(is_users(os.path.abspath(place)) for place in places if os.path.exists(place)):
        raise ValueError(f"{module!r} is your own module, not an installed one: leave it out")


def missing_packages() -> list[str]:
    """Return the names of the packages that slaves need and this Python lacks."""
    needed = ("trio", "tricycle", "msgspec", CARRIED)
    missing = [name for name in needed if find_spec(name) is None]
    if not (SUPERVISOR / "__main__.py").is_file():
        missing.append("supervisor")
    return ["tractor" if name == CARRIED else name for name in missing]


def how_to_install(extra: str = "supervisor") -> str:
    """Return the shell command that installs an extra; by default what slaves need."""
    import shlex  # here, like those below, so that clients import little

    source = shlex.join(_source(extra))
    python = shlex.quote(sys.executable)
    if find_spec("pip") is not None:
        return f"{python} -m pip install {source}"
    uv = "uv" if find_spec("uv") is None else f"{python} -m uv"
    return f"{uv} pip install --python {python} {source}"


def installed_version() -> str:
    """Return the version of creamas-sc."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version("creamas-sc")
    except PackageNotFoundError:  # run from a folder of sources
        return "unknown: not installed"


def explain_import(error: ModuleNotFoundError) -> ImportError:
    """Return the error for a failed import; if trio is missing, it says what to install."""
    if error.name != "trio":
        return error
    return ImportError(f"environments need trio, which this Python lacks: {how_to_install()}")


def _source(extra: str) -> list[str]:
    """Return pip's arguments for creamas-sc with an extra, from where it was installed."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        origin = json.loads(distribution("creamas-sc").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # run from a clone that was never installed
        return [f"{Path(__file__).parents[2]}[{extra}]"]
    if "url" not in origin:
        return [f"creamas-sc[{extra}]"]
    url, vcs = origin["url"], origin.get("vcs_info")
    if vcs is not None:
        return [f"creamas-sc[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}"]
    if not url.startswith("file:"):
        return [f"creamas-sc[{extra}] @ {url}"]
    place = f"{unquote(urlsplit(url).path)}[{extra}]"
    return ["--editable", place] if origin.get("dir_info", {}).get("editable") else [place]
