"""Starts the process tree of a supervisor: the keeper, which forks all the rest.

A zygote needs about as long for its imports as the script does. A script that calls `prestart`
before its own imports lets both go on at the same time: `prestart` starts a tree, which `launch`
lends to one user after another, unless it is lent already or something that processes inherit has
changed.

Nothing heavy is imported here, so that the keeper starts first: not `logging`, say.
"""

from __future__ import annotations

import atexit
import gc
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from creamas_sc.errors import CreamasError, StartError
from creamas_sc.runtime.descriptors import allow_descriptors, open_standard_descriptors
from creamas_sc.runtime.installation import (
    SUPERVISOR,
    check_installed,
    how_to_install,
    missing_packages,
)
from creamas_sc.runtime.main_script import in_slave
from creamas_sc.runtime.paths import runtime_folder

# What the zygote imports once for all actors: no user code, no numpy. A slave that loads a script's
# classes imports what the script imports.
PRELOADED = ("creamas_sc.mp.slave_main", "creamas_sc.mp", "creamas_sc.core.simulation")
# What the zygote of a daemon imports in addition: it forks hosts too.
PRELOADED_FOR_HOSTS = ("creamas_sc.simulation_host.main",)
# Prefixes of environment variables that take effect before a slave runs any code. All others may
# change later: each slave's order carries the whole environment.
_READ_AT_START = (
    "LD_", "MALLOC_", "GLIBC_", "PYTHON", "LC_", "LANG", "TZ", "OPENSSL_", "XDG_RUNTIME_DIR",
    "CREAMAS_",
)  # fmt: skip
# Exempt: a slave's import path comes with its order, and the supervisor does not use it.
_NOT_READ = "PYTHONPATH"
# Lines of /proc/self/status that a child inherits.
_INHERITED = (
    "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapEff", "CapBnd", "NoNewPrivs",
    "Seccomp", "Cpus_allowed", "Mems_allowed",
)  # fmt: skip

# Fixed in slaves and hosts unless the user has set it, so that sets of strings have one order in
# all runs. Python draws it against strangers who send keys that collide; here, peers have proved to
# be the user's before more than a short hello is decoded. If agents parse what strangers wrote, the
# user may set it to "random".
HASH_SEED = ("PYTHONHASHSEED", "0")
# How many threads OpenMP computes with, and what asks it or this variable: OpenBLAS, MKL, PyTorch.
THREADS = "OMP_NUM_THREADS"
# From the keeper's kill to the end of its tree: as a rule some milliseconds.
END_SECONDS = 2.0


class Launched(NamedTuple):
    """A keeper and the connection to its supervisor, both for the receiver to end.

    Attributes:
        record: Path of the file in which the keeper records its tree, and which it removes at the
            end; empty for none.
        tree_ended: Connected to a socket that only the keeper and its zygote hold: end of file
            means that both are gone.
    """

    sock: socket.socket
    keeper: subprocess.Popen[bytes]
    record: str
    tree_ended: socket.socket


class _Prestarted:
    """What `prestart` started.

    Attributes:
        modules: What its zygote imports in addition; None before `prestart`.
        tree: None if it has ended, or belongs to the parent.
        idle: Has the tree while nobody uses it; to pop it is to own it.
        surroundings: What it inherited.
    """

    modules: tuple[str, ...] | None = None
    tree: Launched | None = None
    idle: ClassVar[list[Launched]] = []
    surroundings: Any = None


def prestart(*modules: str) -> None:
    """Start the processes behind a `MultiEnvironment` now, beside the script's own imports.

    Optional: it makes a script with slaves start faster on a machine with an idle processor. Call
    it in the first lines of the script::

        import creamas_sc

        creamas_sc.prestart("matplotlib.pyplot", "pandas")

        import matplotlib.pyplot as plt
        import pandas as pd
        from creamas_sc import Environment, MultiEnvironment

    The script's `MultiEnvironment`s use what was started, one after the other, and it ends with the
    script. The script ends sooner, too: what is alive then is not searched for garbage, so
    reference cycles are not finalized. In a slave that loads the script for its classes, this does
    nothing.

    Args:
        *modules: Installed modules that are slow to import and that slaves need. They are imported
            once, in the process from which all slaves are forked: each slave, of each simulation of
            the script, has them at once and shares their memory. Leave out what starts threads as
            it is imported, or opens files or connections: a warning names a module with threads.
            Unless ``OMP_NUM_THREADS`` is set, numpy's linear algebra then runs in one thread in
            each slave.

    Raises:
        ImportError: A module is not installed.
        ValueError: It is the user's own, which slaves load when the simulation begins.
        StartError: There can be no supervisor here; the message says what to do.
    """
    if in_slave() or _Prestarted.modules is not None:
        return
    for name in modules:
        check_installed(name)
    _Prestarted.modules = modules
    _Prestarted.idle.append(_start_lasting())
    atexit.register(_end_prestarted)
    # All that was imported is alive at the end: to search it for garbage takes longer than a close.
    atexit.register(gc.freeze)
    os.register_at_fork(after_in_child=_forget_prestarted)


def supervisor_command() -> list[str]:
    """Return the command that starts the supervisor's package.

    Slaves are forked from what it starts, so this Python's options reach them.
    """
    return [*python_command(), str(SUPERVISOR / "__main__.py")]


def python_command() -> list[str]:
    """Return how another Python is started with this one's options: ``-O``, ``-X dev`` and more."""
    # A private name, which multiprocessing relies on too.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if "-S" in options:
        options.remove("-S")  # what it needs may be in site-packages
    return [sys.executable, *options, "-P"]


def launch(inherited: Sequence[int] = (), preload: Sequence[str] = ()) -> Launched:
    """Start a keeper, or borrow what `prestart` started (see `is_lent`).

    Args:
        inherited: Descriptors that the last process of the tree keeps open until it ends.
        preload: Modules that the zygote imports in addition to what slaves need.

    Raises:
        StartError: There can be no supervisor here; the message says what to do.
    """
    if _Prestarted.modules is None or inherited or preload:
        return _start(inherited, preload)
    try:
        tree = _Prestarted.idle.pop()
    except IndexError:
        return _start_lasting() if _Prestarted.tree is None else _start((), _Prestarted.modules)
    if _is_alive(tree) and _Prestarted.surroundings == _surroundings():
        return tree
    _end_prestarted()
    return _start_lasting()


def is_lent(tree: Launched) -> bool:
    """Whether `launch` has lent a tree, which is to be given back."""
    return tree is _Prestarted.tree


def give_back(tree: Launched) -> None:
    """Return a tree that was lent: its supervisor runs, has no actors, and has sent all it had."""
    _Prestarted.idle.append(tree)


def keep(tree: Launched) -> None:
    """Have a tree, lent or not, be ended by its user."""
    if is_lent(tree):
        _Prestarted.tree = None


def _start_lasting() -> Launched:
    tree = _Prestarted.tree = _start((), _Prestarted.modules or ())
    _Prestarted.surroundings = _surroundings()
    return tree


def _is_alive(tree: Launched) -> bool:
    """Whether an idle tree is alive: then there is nothing to read from it."""
    return tree.keeper.poll() is None and not any(
        _is_readable(sock, 0.0) for sock in (tree.sock, tree.tree_ended)
    )


def _is_readable(sock: socket.socket, seconds: float) -> bool:
    """Whether there is something to read, or end of file, within ``seconds``."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _end_prestarted() -> None:
    tree, _Prestarted.tree = _Prestarted.tree, None
    _Prestarted.idle.clear()
    if tree is None:
        return
    tree.sock.close()
    tree.keeper.kill()  # its whole tree goes with it, and no user code runs there
    tree.keeper.wait()
    with tree.tree_ended:
        _is_readable(tree.tree_ended, END_SECONDS)
    if tree.record:
        Path(tree.record).unlink(missing_ok=True)


def _forget_prestarted() -> None:
    """In a forked child: the keeper belongs to the parent."""
    tree, _Prestarted.tree = _Prestarted.tree, None
    _Prestarted.idle.clear()
    if tree is None:
        return
    tree.sock.close()
    tree.tree_ended.close()
    tree.keeper.returncode = 0  # so that its destructor does not wait for it


def _start(inherited: Sequence[int], preload: Sequence[str]) -> Launched:
    _check_installation()
    environ = {**os.environ, "CREAMAS_TREE": (record := _new_record())}
    environ.setdefault(*HASH_SEED)
    if preload and preload == _Prestarted.modules:
        environ.setdefault(THREADS, "1")  # read by numpy as it is imported; threads do not survive
    open_standard_descriptors()
    allow_descriptors()  # inherited by all processes
    ours, theirs = socket.socketpair()
    tree_ended, held_by_tree = socket.socketpair()
    with theirs, held_by_tree:
        try:
            keeper = subprocess.Popen(
                [*supervisor_command(), str(theirs.fileno()), str(os.getpid()), *PRELOADED,
                 *preload],
                stdin=subprocess.DEVNULL,
                stdout=_for_child(1),
                stderr=_for_child(2),
                pass_fds=[theirs.fileno(), held_by_tree.fileno(), *inherited],
                env=environ,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            tree_ended.close()
            raise StartError(f"cannot start the supervisor: {error}") from error
    return Launched(ours, keeper, record, tree_ended)


def _new_record() -> str:
    """Path for the keeper's record of its tree; empty if there is no private folder."""
    try:
        folder = runtime_folder()
    except CreamasError as error:
        import logging  # here, as it takes a while

        logging.getLogger(__name__).warning(
            "processes that slaves detach may outlive the simulation: %s", error
        )
        return ""
    return str(folder / f"{os.urandom(16).hex()}.tree")


def _check_installation() -> None:
    """Check that there can be a supervisor here.

    Raises:
        StartError: There cannot.
    """
    if sys.platform != "linux":
        raise StartError(f"slaves need Linux; this system is {sys.platform}")
    missing = missing_packages()
    if missing:
        raise StartError(
            f"slaves need {', '.join(missing)}, which this Python lacks: {how_to_install()}"
        )


def _surroundings() -> Any:
    """What a process started here inherits and cannot change later, for comparison."""
    status = Path("/proc/self/status").read_text().splitlines()
    return (
        {k: v for k, v in os.environ.items() if k.startswith(_READ_AT_START) and k != _NOT_READ},
        os.getcwd(),
        [line for line in status if line.startswith(_INHERITED)],
        Path("/proc/self/limits").read_text(),
        os.getpriority(os.PRIO_PROCESS, 0),
        [_identify(fd) for fd in (1, 2)],
        sys.executable,
    )


def _for_child(fd: int) -> int | None:
    """What `Popen` takes for standard output or error: a file of the user's that got ``fd`` is not.

    Files that Python opens are not inheritable, whatever number they get.
    """
    return None if os.get_inheritable(fd) else subprocess.DEVNULL


def _identify(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:  # it is closed
        return None
    return status.st_dev, status.st_ino
