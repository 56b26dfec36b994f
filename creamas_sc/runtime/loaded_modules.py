"""The user's modules that this process has loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final

from creamas_sc.runtime.installation import is_users

MAIN: Final = "__main__"


def loaded_files(there: bool = True) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The user's modules of this process: names, files, and what is defined there.

    Args:
        there: Only of files that are on this machine.
    """
    for name, module in list(sys.modules.items()):
        try:
            contents = _contents(module)
        except AttributeError:
            continue
        file = contents.get("__file__")
        if isinstance(file, str) and (file.endswith(".py") or name == MAIN):
            path = os.path.abspath(file)
            if is_users(path) and (not there or os.path.isfile(path)):
                yield name, path, contents


def _contents(module: Any) -> dict[str, Any]:
    """What a module defines; a lazy one would be loaded by getattr.

    Raises:
        AttributeError: It is no module, but something that took its place.
    """
    contents: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return contents


def modules_of_script() -> set[str]:
    """Names of the modules that the script has imported; see `imported_by`."""
    return imported_by(MAIN)


def imported_by(module: str) -> set[str]:
    """Names of a module and of those that it has imported, directly or through the user's.

    They are those of the modules, classes and functions to which one of them has a name. A program
    that loads modules for other ends, as pytest does, has none of these.
    """
    users = {name for name, _, _ in loaded_files()}
    found, unseen = {module}, [module]
    while unseen:
        for value in list(_contents(sys.modules[unseen.pop()]).values()):
            kind, name = type(value), None  # isinstance would ask a proxy for its object
            if issubclass(kind, ModuleType):
                name = _contents(value).get("__name__")
            elif issubclass(kind, (type, FunctionType)):
                name = value.__module__
            if isinstance(name, str) and name not in found:
                found.add(name)
                if name in users:
                    unseen.append(name)
    return found
