"""The key that nodes and a supervisor share, and the file in which it is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from creamas_sc.errors import BadValue

KEY_BYTES: Final = 32
_OTHERS = 0o077


def read_key(path: Path) -> bytes:
    """The key in the file at ``path``: 64 hexadecimal digits.

    Raises:
        BadValue: There is no such file, others may read or write it, or it has no key.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(4 * KEY_BYTES)
    except OSError as error:
        raise BadValue(f"cannot read the key of nodes, {path}: {error.strerror}") from error
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS:
        raise BadValue(f"the key of nodes, {path}, must be yours alone: chmod 600 {path}")
    return parse_key(text, str(path))


def parse_key(text: bytes, source: str) -> bytes:
    """The key that a file or descriptor gave as text; a BadValue names the ``source``."""
    try:
        key = bytes.fromhex(text.decode().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise BadValue(f"{source} has no key of nodes: {2 * KEY_BYTES} hexadecimal digits")
    return key


def make_key(path: Path) -> bytes:
    """The key in the file at ``path``, which is made, with a new key, if there is none.

    Raises:
        BadValue: As of `read_key`, or the file cannot be made.
    """
    key = os.urandom(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.hex().encode() + b"\n")
            os.link(draft, path)
        finally:
            draft.unlink()
        return key
    except FileExistsError:
        pass
    except OSError as error:
        raise BadValue(f"cannot make a key of nodes, {path}: {error.strerror}") from error
    return read_key(path)
