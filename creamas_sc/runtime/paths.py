"""Where things are on this machine: the user's runtime folder, names and sockets of daemons."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from creamas_sc.errors import BadValue, CreamasError

__all__ = ["check_name", "daemon_name", "daemon_socket", "runtime_folder"]

DEFAULT_DAEMON = "default"
# What a unix socket's path may have: sun_path without its closing zero.
SOCKET_PATH_BYTES = 107
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def runtime_folder() -> Path:
    """The user's private folder for keys and sockets, made with mode 0700.

    It is in $XDG_RUNTIME_DIR, or else, also where that is no absolute path, in the folder for
    temporary files. A $XDG_RUNTIME_DIR that is not there is made, with mode 0700 like all above it
    that is missing: another place instead would hide daemons from those who come when it is there.

    Raises:
        CreamasError: It exists and others could read it, or it belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        folder = Path(base) / "creamas"
    else:
        import tempfile  # which takes long, and few need it

        folder = Path(tempfile.gettempdir()) / f"creamas-{os.getuid()}"
    try:
        _make_private(folder)
    except OSError as error:
        raise CreamasError(
            f"the folder {folder} cannot be made: {error.strerror}; set XDG_RUNTIME_DIR to a "
            "folder of yours"
        ) from error
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not private or status.st_uid != os.getuid():
        raise CreamasError(f"{folder} must be a folder of yours with mode 0700; remove or mend it")
    return folder


def _make_private(folder: Path) -> None:
    """Make it, and what is missing above it, for this user alone; what is there stays as it is."""
    if not os.path.lexists(folder.parent):
        _make_private(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass  # what it is, others look at


def check_name(name: object, what: str) -> str:
    """``name``, if it will do as the name of a daemon or simulation.

    Args:
        what: What it names, for the error.

    Raises:
        BadValue: It is of another form.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadValue(
            f"{name!r:.100} is no name of a {what}: use up to 64 letters, digits, '.', '_' and "
            "'-', with a letter or digit first"
        )
    return name


def daemon_name(given: str | None = None) -> str:
    """``given``, else ``$CREAMAS_DAEMON``, else "default".

    Raises:
        BadValue: It is no name.
    """
    name = given if given is not None else os.environ.get("CREAMAS_DAEMON") or DEFAULT_DAEMON
    return check_name(name, "daemon")


def daemon_socket(name: str) -> Path:
    """Where the daemon of that name listens.

    Raises:
        BadValue: It is no name.
        CreamasError: The folder will not do (see `runtime_folder`), or the path is too long.
    """
    path = runtime_folder() / f"{check_name(name, 'daemon')}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise CreamasError(
            f"the socket's path {path} is longer than the {SOCKET_PATH_BYTES} bytes that the "
            "system allows: set XDG_RUNTIME_DIR to a shorter folder"
        )
    return path
