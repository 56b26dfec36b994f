"""Classes by name: how a class travels from a script to its slaves.

A class is named ``pkg.mod:Qual.Name``. Classes of the script itself are ``__main__:Name``: a slave
loads the script once more, under another module name (so an ``if __name__ == "__main__"`` guard
stays shut), and the first call into creamas_sc from the script ends that load, so that a script
without a guard does not start a simulation within the simulation.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from creamas_sc.errors import LoadError

__all__ = ["MainScript", "class_name", "load_class", "load_object", "portable_name"]

MAIN = "__main__"
SCRIPT_MODULE = "__creamas_script__"


class _LoadEnded(BaseException):
    """Ends the second load of a script; no ``except Exception`` there may stop it."""


@dataclass(frozen=True)
class MainScript:
    """Where the script's classes can be loaded from again.

    ``package`` is set for ``python -m package.module``, where relative imports must work.
    """

    file: str
    package: str | None
    argv: tuple[str, ...]

    def fields(self) -> tuple[str, str | None, tuple[str, ...]]:
        """What the constructor takes, to be sent."""
        return self.file, self.package, self.argv

    @classmethod
    def of_this_process(cls) -> MainScript | None:
        """The script (a slave's is its master's); None in a notebook, ``-c``, standard input."""
        if _Script.source is not None:
            return _Script.source
        main = sys.modules.get(MAIN)
        file = getattr(main, "__file__", None)
        path = _found(file) if file else ""
        if not path:
            return None
        return cls(path, getattr(main, "__package__", None), tuple(sys.argv))


@functools.lru_cache(maxsize=1)  # asked at each spawn, of one file
def _found(file: str) -> str:
    """The absolute path of ``file``, "" if there is none."""
    return os.path.abspath(file) if os.path.isfile(file) else ""


class _Script:
    """State of the second load, in a slave; one a process."""

    source: MainScript | None = None
    module: ModuleType | None = None
    loading_thread: int | None = None
    ended_at: str = ""


def adopt_script(source: MainScript | None) -> None:
    """Make ``__main__:`` names mean ``source`` in this process."""
    _Script.source = source


def in_slave() -> bool:
    """Whether ``__main__`` names belong to another process's script."""
    return _Script.source is not None


def end_script_load() -> None:
    """Called by whatever a script uses to start something; returns unless a load is going on."""
    if _Script.loading_thread != threading.get_ident():
        return
    assert _Script.source is not None
    for frame in reversed(traceback.extract_stack()):
        if frame.filename == _Script.source.file:
            _Script.ended_at = f"line {frame.lineno}"
            break
    raise _LoadEnded


def _execute(source: MainScript, module: ModuleType, failures: list[BaseException]) -> None:
    _Script.loading_thread = threading.get_ident()
    sys.argv[:] = source.argv
    try:
        with open(source.file, "rb") as file:
            code = compile(file.read(), source.file, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except BaseException as error:
        # Whatever an event loop made of _LoadEnded on its way out, the load ended as it should.
        if not _Script.ended_at:
            failures.append(error)
    finally:
        _Script.loading_thread = None


def _script_module() -> ModuleType:
    """The script's module in this process, loaded at the first call."""
    if _Script.source is None:
        return sys.modules[MAIN]
    if _Script.module is None:
        module = ModuleType(SCRIPT_MODULE)
        module.__file__ = _Script.source.file
        module.__package__ = _Script.source.package
        sys.modules[SCRIPT_MODULE] = module
        failures: list[BaseException] = []
        # In a thread of its own: an unguarded script may call trio.run or asyncio.run, which
        # must not find the slave's loop running.
        thread = threading.Thread(
            target=_execute, args=(_Script.source, module, failures), daemon=True
        )
        thread.start()
        thread.join()
        if failures:
            del sys.modules[SCRIPT_MODULE]
            error = failures[0]
            told = "".join(traceback.format_exception_only(error)).strip()
            raise LoadError(f"loading the script {_Script.source.file} failed: {told}") from error
        _Script.module = module
    return _Script.module


def class_name(cls: type | FunctionType) -> str:
    """``pkg.mod:Qual.Name`` of a class, or of a function."""
    module = MAIN if cls.__module__ == SCRIPT_MODULE else cls.__module__
    return f"{module}:{cls.__qualname__}"


def portable_name(cls: Any) -> str:
    """Name by which another process can load a class or function.

    A string is checked for its form only.

    Raises:
        LoadError: No other process could, and what to do about it.
    """
    if isinstance(cls, str):
        module, _, name = cls.partition(":")
        if not module or not name:
            raise LoadError(f"{cls!r} is no class name: write 'package.module:Class'")
        if _names_the_script(module):  # which is no other module than the one that runs
            module, cls = MAIN, f"{MAIN}:{name}"
    elif isinstance(cls, (type, FunctionType)):
        module, _, name = (cls_name := class_name(cls)).partition(":")
        if "<locals>" in name or "<lambda>" in name:
            raise LoadError(
                f"{cls_name} is defined inside a function, where no slave can find it: "
                "move it to the top of its module"
            )
        cls = cls_name
    else:
        raise LoadError(f"expected a class or 'package.module:Class', got {cls!r}")
    if module == MAIN and not in_slave() and MainScript.of_this_process() is None:
        raise LoadError(
            f"{name} is defined in a notebook, in -c or on standard input, which slaves "
            f"cannot load: put it into a file, say agents.py, and import it from there"
        )
    return str(cls)


def _names_the_script(module: str) -> bool:
    source = MainScript.of_this_process()
    return (
        source is not None
        and not source.package
        and module == os.path.splitext(os.path.basename(source.file))[0]
    )


def load_object(name: str) -> Any:
    """What ``pkg.mod:Qual.Name`` names.

    Raises:
        LoadError: The form is wrong, the module does not import, or it has no such name.
    """
    module_name, _, qualname = name.partition(":")
    if not module_name or not qualname:
        raise LoadError(f"{name!r} is no class name: write 'package.module:Class'")
    try:
        module = _script_module() if module_name == MAIN else importlib.import_module(module_name)
    except LoadError:
        raise
    except BaseException as error:  # a module's top level may raise anything, SystemExit included
        told = "".join(traceback.format_exception_only(error)).strip()
        raise LoadError(f"module {module_name!r} of {name!r} does not import: {told}") from error
    found: Any = module
    for part in qualname.split("."):
        if not hasattr(found, part):
            raise LoadError(_missing(name, module_name, part))
        found = getattr(found, part)
    return found


def load_class(name: str) -> type:
    """The class that ``name`` names; see `load_object`."""
    found = load_object(name)
    if not isinstance(found, type):
        raise LoadError(f"{name!r} is no class but {type(found).__name__}")
    return found


def _missing(name: str, module_name: str, part: str) -> str:
    if module_name == MAIN and _Script.ended_at:
        return (
            f"{name!r}: the script has no {part!r} above {_Script.ended_at}, its first call into "
            "creamas_sc: define the class above that call, or in a module that the script imports"
        )
    return f"{name!r}: module {module_name!r} has no {part!r}"
