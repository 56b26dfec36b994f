"""Classes by name: how a slave finds the classes of a script.

A class is named ``pkg.mod:Qual.Name``. A class of the script itself is ``__main__:Name``. To find
it, a slave loads the script again:

- under another module name, so that ``if __name__ == "__main__"`` is false;
- in the main thread, where it may set signal handlers, and as if no event loop were running there:
  a script without such a guard may call trio.run or asyncio.run;
- until the script's first call into creamas_sc: everything with which a script starts something
  calls `end_script_load`, which raises `_LoadEnded`. So a script without a guard does not start a
  simulation inside the simulation, and what it defines above that call is found. The line of that
  call is kept for the error about names that are not.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from creamas_sc.errors import LoadError
from creamas_sc.foreign import shown
from creamas_sc.runtime.code_versions import (
    absence_note,
    change_note,
    keep_version,
    open_version,
)
from creamas_sc.runtime.main_script import MAIN, MainScript, adopted_script, in_slave

SCRIPT_MODULE = "__creamas_script__"
# The module of a script's classes: in its own process, in one that multiprocessing has started
# (method "spawn" or "forkserver"), and in a slave.
SCRIPT_MODULES = (MAIN, "__mp_main__", SCRIPT_MODULE)


class _LoadEnded(BaseException):
    """Ends the load of a script in a slave; ``except Exception`` in it does not catch this."""


class _Script:
    """State of the script's load in a slave; one per process."""

    module: ModuleType | None = None
    loading_thread: int | None = None
    ended_at: str = ""


def end_script_load() -> None:
    """End the load of the script if it calls this in a slave; else do nothing.

    Called by everything with which a script starts something.
    """
    if _Script.loading_thread != threading.get_ident():
        return
    source = adopted_script()
    assert source is not None
    for frame in reversed(traceback.extract_stack()):
        if frame.filename == source.file:
            _Script.ended_at = f"line {frame.lineno}"
            break
    raise _LoadEnded


@contextmanager
def _loop_hidden() -> Iterator[None]:
    """Have the block find no event loop of trio's running in this thread."""
    # A private name: trio has no other way to run code outside a loop in the loop's own thread.
    context = vars(import_module("trio._core._run").GLOBAL_RUN_CONTEXT)
    library = import_module("sniffio").thread_local
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = dict(context), library.name, signal.set_wakeup_fd(-1) if in_main_thread else -1
    context.clear()
    library.name = None
    try:
        yield
    finally:
        context.update(before[0])
        library.name = before[1]
        if in_main_thread:
            signal.set_wakeup_fd(before[2], warn_on_full_buffer=False)


def _execute(source: MainScript, module: ModuleType) -> None:
    """Load the script.

    Raises:
        BaseException: What it raised.
    """
    _Script.loading_thread = threading.get_ident()
    pid = os.getpid()
    sys.argv[:] = source.argv
    try:
        version = open_version(source.file)
        code = compile(version.source, source.file, "exec", dont_inherit=True)
        try:
            with _loop_hidden():
                exec(code, module.__dict__)
        finally:
            if _Script.ended_at or sys.exc_info()[0] is None:
                keep_version(version)
    except BaseException:
        # An event loop may have wrapped or replaced _LoadEnded: the load ended as intended.
        if not _Script.ended_at:
            raise
    finally:
        _Script.loading_thread = None
        if os.getpid() != pid:  # a process that the script has forked: it must not go on as a slave
            os._exit(0)


def _script_module() -> ModuleType:
    """Return the script's module in this process; loads it at the first call."""
    source = adopted_script()
    if source is None:
        return sys.modules[MAIN]
    if _Script.module is None:
        module = ModuleType(SCRIPT_MODULE)
        module.__file__ = source.file
        module.__package__ = source.package
        sys.modules[SCRIPT_MODULE] = module
        try:
            Context().run(_execute, source, module)
        except BaseException as error:  # a script may raise anything, SystemExit included
            del sys.modules[SCRIPT_MODULE]
            raise LoadError(
                f"loading the script {source.file} failed: {_one_line(error)}"
            ) from error
        _Script.module = module
    return _Script.module


def _one_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def class_name(cls: type | FunctionType) -> str:
    """Return ``pkg.mod:Qual.Name`` for a class or a function."""
    module = MAIN if cls.__module__ in SCRIPT_MODULES else cls.__module__
    return f"{module}:{cls.__qualname__}"


def portable_name(cls: Any) -> str:
    """Return the name by which another process can load a class or function.

    Of a string, only the form is checked.

    Raises:
        LoadError: No other process could load it; the message says what to do.
    """
    if isinstance(cls, str):
        module, name = _split(cls)
        script = MainScript.of_this_process()
        if script and not script.package and module == Path(script.file).stem:
            module, cls = MAIN, f"{MAIN}:{name}"  # it runs as __main__
    elif isinstance(cls, (type, FunctionType)):
        module, _, name = (cls_name := class_name(cls)).partition(":")
        if "<locals>" in name or "<lambda>" in name:
            raise LoadError(
                f"{cls_name} is defined inside a function, where slaves cannot find it: "
                "move it to the top level of its module"
            )
        cls = cls_name
    else:
        raise LoadError(f"expected a class or 'package.module:Class', got {shown(cls)}")
    if module == MAIN and not in_slave() and MainScript.of_this_process() is None:
        raise LoadError(
            f"{name} is defined in a notebook, in -c or on standard input, which slaves "
            f"cannot load: put it into a file, say agents.py, and import it from there"
        )
    return str(cls)


def _split(name: str) -> tuple[str, str]:
    module, _, qualname = name.partition(":")
    if not module or not qualname:
        raise LoadError(f"{name!r} is not a class name: write 'package.module:Class'")
    return module, qualname


def load_object(name: str) -> Any:
    """Return the object with the name ``pkg.mod:Qual.Name``.

    Raises:
        LoadError: The form is wrong, the module does not import, or it has no such name.
    """
    module_name, qualname = _split(name)
    try:
        module = _script_module() if module_name == MAIN else import_module(module_name)
    except LoadError:
        raise
    except BaseException as error:  # a module may raise anything, SystemExit included
        raise LoadError(
            f"module {module_name!r} of {name!r} does not import: {_one_line(error)}"
            f"{absence_note(error)}"
        ) from error
    found: Any = module
    for part in qualname.split("."):
        # Within a class only what it has itself: the name may come from elsewhere, and neither a
        # property nor a metaclass's code is to run.
        if found is module:
            has, found = hasattr(module, part), getattr(module, part, None)
        else:
            has, found = _member(found, part)
        if not has:
            if module_name == MAIN and _Script.ended_at:
                raise LoadError(
                    f"{name!r}: the script has no {part!r} above {_Script.ended_at}, its first "
                    "call into creamas_sc: define the class above that call, or in a module that "
                    f"the script imports{change_note(module)}"
                )
            raise LoadError(
                f"{name!r}: module {module_name!r} has no {part!r}{change_note(module)}"
            )
    return found


def _member(found: Any, name: str) -> tuple[bool, Any]:
    """Whether ``found`` is a class with a class or function of that name, and which."""
    static = inspect.getattr_static(found, name, None) if isinstance(found, type) else None
    if isinstance(static, staticmethod):
        static = static.__func__
    return isinstance(static, (type, FunctionType)), static


def load_class(name: str) -> type:
    """Return the class with the name ``name``; see `load_object`."""
    found = load_object(name)
    if not isinstance(found, type):
        raise LoadError(f"{name!r} is not a class but of type {type(found).__name__}")
    return found


def load_subclass(parameter: str, name: str, base: type) -> Any:
    """Return the class with the name ``name``, which must be ``base`` or a subclass of it.

    Args:
        parameter: What asks for it, for the error.

    Raises:
        LoadError: It is not, or as `load_object`.
    """
    cls = load_class(name)
    if not issubclass(cls, base):
        raise LoadError(f"{parameter}: {class_name(cls)} is not a subclass of {base.__name__}")
    return cls
