"""Packages that import their public names at first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from creamas_sc.runtime.gc_control import gc_paused
from creamas_sc.runtime.installation import explain_import


def lazy_attributes(
    package: str, modules: Mapping[str, Sequence[str]], submodules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package that imports its names at first use.

    Args:
        package: The package's ``__name__``.
        modules: Module, relative to the package -> the public names that it defines.
        submodules: Modules of the package that are its names, too.
    """
    module_of = {name: name for name in submodules}
    module_of |= {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            with gc_paused():  # what it makes stays
                module = import_module(f"{package}.{module_of[name]}")
        except ModuleNotFoundError as error:
            raise explain_import(error) from None
        return module if name in submodules else getattr(module, name)

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return __getattr__, __dir__
