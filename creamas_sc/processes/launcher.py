"""Starts the keeper of a supervisor's tree, for a script as early as that is known to be wanted.

A zygote imports for as long as the script that wants it. So where a script itself imports what
needs slaves, both go on at the same time: `start_early` starts a keeper, and the first `launch`
takes it over, unless something that processes inherit has changed meanwhile.

Nothing heavy is imported here: the keeper is to run first.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from creamas_sc.errors import CreamasError, StartError
from creamas_sc.runtime.installation import how_to_install, missing_packages
from creamas_sc.runtime.paths import runtime_folder

__all__ = ["PRELOADED_FOR_HOSTS", "Launched", "launch", "start_early"]

log = logging.getLogger(__name__)

# What the zygote imports once for all actors; nothing of a user's, no numpy. A slave that loads a
# script's classes imports what the script does.
PRELOADED = ("creamas_sc.mp.slave_main", "creamas_sc.mp", "creamas_sc.core.simulation")
# What the zygote of a daemon imports beside that: it forks hosts too.
PRELOADED_FOR_HOSTS = ("creamas_sc.host.main",)
# Of the environment, what counts before anything of a slave runs; all of it comes with a slave's
# order, too. Names begin like this.
_READ_AT_START = (
    "LD_", "MALLOC_", "GLIBC_", "PYTHON", "LC_", "LANG", "TZ", "OPENSSL_", "XDG_RUNTIME_DIR",
    "CREAMAS_",
)  # fmt: skip
# Each slave's import path comes with its order, and the supervisor's is its own.
_NOT_READ = "PYTHONPATH"
# Of /proc/self/status: what a child inherits.
_INHERITED = (
    "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapEff", "CapBnd", "NoNewPrivs",
    "Seccomp", "Cpus_allowed", "Mems_allowed",
)  # fmt: skip


class Launched(NamedTuple):
    """A keeper and the connection to its supervisor, both the receiver's to end.

    Attributes:
        record: Path of the file in which the keeper records its tree, and which it removes; empty
            for none.
        tree_ended: Read end of a pipe whose write end only the keeper and its zygote hold.
    """

    sock: socket.socket
    keeper: subprocess.Popen[bytes]
    record: str
    tree_ended: int


_early: Launched | None = None
_early_surroundings: Any = None


def launch(inherited: Sequence[int] = (), preload: Sequence[str] = ()) -> Launched:
    """Start a keeper, or take over the one that was started early.

    Args:
        inherited: Descriptors that the last process of its tree keeps open until it ends.
        preload: What its zygote imports, beside what slaves need.

    Raises:
        StartError: There can be no supervisor here; the message says what to do.
    """
    global _early
    early, _early = _early, None
    if early is not None:
        if not inherited and not preload and _early_surroundings == _surroundings():
            return early
        _end(early)
    return _start(inherited, preload)


def start_early() -> None:
    """Start a keeper before anybody asks; one that is not taken over ends with this process."""
    global _early, _early_surroundings
    try:
        early = _start((), ())
    except StartError:  # whoever really needs one is told
        return
    _early, _early_surroundings = early, _surroundings()
    atexit.register(_end_early)
    os.register_at_fork(after_in_child=_leave_early)


def _end_early() -> None:
    global _early
    early, _early = _early, None
    if early is not None:
        _end(early)


def _leave_early() -> None:
    """A fork of the script has none: it is its parent's."""
    global _early
    early, _early = _early, None
    if early is not None:
        early.sock.close()
        os.close(early.tree_ended)
        early.keeper.returncode = 0  # of nobody's concern here, its destructor's included


def _end(early: Launched) -> None:
    early.sock.close()
    os.close(early.tree_ended)
    early.keeper.kill()  # everything below it goes with it, and nothing of a user's ever ran there
    early.keeper.wait()
    if early.record:
        Path(early.record).unlink(missing_ok=True)


def _start(inherited: Sequence[int], preload: Sequence[str]) -> Launched:
    package = _supervisor_package()
    record = _new_record()
    ours, theirs = socket.socketpair()
    tree_ended, held_by_tree = os.pipe()
    with theirs:
        try:
            keeper = subprocess.Popen(
                [sys.executable, "-P", str(package / "__main__.py"), str(theirs.fileno()),
                 str(os.getpid()), *PRELOADED, *preload],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), held_by_tree, *inherited],
                env={**os.environ, "CREAMAS_TREE": record},
            )  # fmt: skip
        except OSError as error:
            ours.close()
            os.close(tree_ended)
            raise StartError(f"cannot start the supervisor: {error}") from error
        finally:
            os.close(held_by_tree)
    return Launched(ours, keeper, record, tree_ended)


def _new_record() -> str:
    """Where the keeper records its tree; nothing where there is no private folder."""
    try:
        folder = runtime_folder()
    except CreamasError as error:
        log.warning("what slaves fork away may be lost: %s", error)
        return ""
    return str(folder / f"{os.urandom(16).hex()}.tree")


def _supervisor_package() -> Path:
    """Folder of the package that is started.

    Raises:
        StartError: It cannot run here.
    """
    if sys.platform != "linux":
        raise StartError("slaves need Linux, which this system is not")
    missing = missing_packages()
    if missing:
        raise StartError(
            f"slaves need {', '.join(missing)}, which this Python lacks: {how_to_install()}"
        )
    spec = find_spec("supervisor.tree.keeper")
    if spec is None or spec.origin is None:
        raise StartError(
            "the package 'supervisor' of this Python is not the one of creamas-sc but the process "
            "manager of that name: use an environment without it"
        )
    return Path(spec.origin).parents[1]


def _surroundings() -> Any:
    """What a process started here inherits for good, to be compared."""
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


def _identify(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:  # it is closed
        return None
    return status.st_dev, status.st_ino
