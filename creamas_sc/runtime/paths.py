"""The user's runtime folder, and the names and sockets of daemons in it."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from contextlib import suppress
from pathlib import Path

from creamas_sc.errors import BadValue, CreamasError
from creamas_sc.foreign import shown

DEFAULT_DAEMON = "default"
# The longest path of a unix socket: sun_path without its closing zero.
SOCKET_PATH_BYTES = 107
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def runtime_folder() -> Path:
    """Return the user's private folder for keys and sockets, created with mode 0700.

    It is in $XDG_RUNTIME_DIR, or in the folder for temporary files if that is not an absolute path.
    If $XDG_RUNTIME_DIR does not exist, it is created with mode 0700, as are its missing parents: if
    another folder were used, processes started after its creation would not find earlier ones.

    Raises:
        CreamasError: It cannot be created, is accessible to others or belongs to another user, or
            other users can put one of theirs in its place.
    """
    folder = runtime_path()
    try:
        make_private(folder)
        advice, above = _mend(folder), _exposed_above(folder)
    except OSError as error:  # others may remove what they have made
        raise CreamasError(
            f"the folder {folder} cannot be created: {error.strerror}; set XDG_RUNTIME_DIR to a "
            "folder that you own"
        ) from error
    if advice:
        raise CreamasError(f"{folder} must be a folder that you own, with mode 0700: {advice}")
    if above is not None:
        raise CreamasError(
            f"other users can put a folder in the place of {folder}, since they may write to "
            f"{above}: set XDG_RUNTIME_DIR to a folder that is in none of theirs"
        )
    return folder


def simulation_folder(simulation: str) -> Path:
    """Return the folder of the simulation with that id, which need not exist.

    Raises:
        CreamasError: The user's runtime folder is not usable.
    """
    return runtime_folder() / "environments" / simulation


def _mend(folder: Path) -> str:
    """What to do about a folder that is not private; "" if it is."""
    status = folder.lstat()
    if status.st_uid != os.getuid():  # in a sticky folder it cannot be removed
        return (
            f"it belongs to the user {status.st_uid}; use another one for all your programs with "
            "'export XDG_RUNTIME_DIR=$HOME/.creamas', say, before they start"
        )
    if not stat.S_ISDIR(status.st_mode):
        return "it is none; remove it"
    return f"type 'chmod 700 {folder}'" if status.st_mode & 0o077 else ""


def _exposed_above(folder: Path) -> Path | None:
    """The first folder or link on the way to ``folder`` that lets other users rename what is in it.

    A sticky one does so only for its owner. What is above the user's home is not looked at.
    """
    home = os.path.expanduser("~")
    for path in (folder, folder.resolve()):
        for each in path.parents:
            status = each.lstat()
            if _is_of_others(status.st_uid):
                return each
            sticky = status.st_mode & stat.S_ISVTX or stat.S_ISLNK(status.st_mode)
            if not sticky and others_may_write(os.fspath(each)):
                return each
            if os.fspath(each) in (home, os.path.realpath(home)):
                break
    return None


def exposed(folder: Path) -> Path | None:
    """What lets other users put files into a folder, or another one in its place; None if nothing.

    Raises:
        OSError: There is no such folder.
    """
    return folder if others_may_write(os.fspath(folder)) else _exposed_above(folder)


def is_private(folder: Path) -> bool:
    """Whether there is such a folder, which only this user may enter or replace.

    After something has removed the runtime folder, another user may make one in its place: whatever
    lies in that was put there by them.
    """
    try:
        return not _mend(folder) and _exposed_above(folder) is None
    except OSError:
        return False


def runtime_path() -> Path:
    """Return the path of `runtime_folder`, which need not exist."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        return Path(base) / "creamas"
    return _temporary_folder() / f"creamas-{os.getuid()}"


def _temporary_folder() -> Path:
    """The folder for temporary files, as the environment has it.

    `tempfile.gettempdir` takes another one while the disk is full: then processes would not find
    those that were started before.
    """
    chosen = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    for folder in (*filter(None, chosen), "/tmp", "/var/tmp"):
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder).absolute()
    return Path("/tmp")


def make_private(folder: Path) -> None:
    """Create a folder and its missing parents with mode 0700; existing ones stay as they are.

    Raises:
        OSError: It cannot be created.
    """
    if not os.path.lexists(folder.parent):
        make_private(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)


def others_may_write(folder: str) -> bool:
    """Whether users other than this process's, and root, may put files into a folder.

    A group that may write counts as others unless it is root's or the user's own, of the same name.
    """
    status = os.stat(folder)
    return _is_of_others(status.st_uid) or _is_open_to_others(status)


def intruder_at(path: str) -> int | None:
    """The user who may have put there what is at ``path``, in a folder of somebody else; or None.

    As Linux does where links are protected, it trusts the folder's owner.

    Raises:
        OSError: There is nothing.
    """
    owner, parent = os.lstat(path).st_uid, os.stat(os.path.dirname(path))
    trusted = owner == parent.st_uid or not _is_of_others(owner)
    return None if trusted or not _is_open_to_others(parent) else owner


def _is_open_to_others(folder: os.stat_result) -> bool:
    if folder.st_mode & stat.S_IWOTH:
        return True
    return bool(folder.st_mode & stat.S_IWGRP) and not _is_trusted_group(folder.st_gid)


def _is_of_others(uid: int) -> bool:
    """Whether that is neither this user nor root.

    In a user namespace all users that are not in it seem to be one: as a rule, they are root.
    """
    if uid in (0, os.geteuid()):
        return False
    ranges = (line.split() for line in Path("/proc/self/uid_map").read_text().splitlines())
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in ranges)


def _is_trusted_group(number: int) -> bool:
    if number == 0:
        return True
    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(number)
    except KeyError:
        return False
    return group.gr_name == name and not {*group.gr_mem} - {name}


def check_name(name: object, what: str) -> str:
    """Return ``name``, if it is valid as the name of a daemon or simulation.

    Args:
        what: "daemon" or "simulation", for the error.

    Raises:
        BadValue: It is not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadValue(
            f"{shown(name)} is not a name for a {what}: use up to 64 letters, digits, '.', '_' and "
            "'-', with a letter or digit first"
        )
    return name


def daemon_name(given: str | None = None) -> str:
    """Return ``given``, else ``$CREAMAS_DAEMON``, else "default".

    Raises:
        BadValue: It is not a valid name.
    """
    name = given if given is not None else os.environ.get("CREAMAS_DAEMON") or DEFAULT_DAEMON
    return check_name(name, "daemon")


def daemon_socket(name: str) -> Path:
    """Return the path of the socket on which the daemon with that name listens.

    Raises:
        BadValue: It is not a valid name.
        CreamasError: The folder is not usable (see `runtime_folder`), or the path is too long.
    """
    path = runtime_folder() / f"{check_name(name, 'daemon')}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise CreamasError(
            f"the socket's path {path} is longer than the {SOCKET_PATH_BYTES} bytes that the "
            "system allows: set XDG_RUNTIME_DIR to a shorter folder"
        )
    return path
