"""What is noted of a run: the machine, versions, the code, and artifacts as rows."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

from creamas_sc.errors import CreamasError, DecodeError
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.results.columns import plain, to_json
from creamas_sc.results.schema import COLUMNS
from creamas_sc.rpc.rounds.order import Order, text_of
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.code_versions import loaded_sources
from creamas_sc.runtime.installation import installed_version
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import FrameReader, Kind, encode_frame

log = logging.getLogger(__name__)

# Whose version may change a result, if they are loaded.
_PACKAGES = ("numpy", "scipy", "pandas", "networkx", "torch", "sklearn", "PIL")
# Gets an address; an agent's number, or None.
NumberOf = Callable[[str], Order | None]


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of those that are loaded."""
    found = {"python": platform.python_version(), "creamas-sc": installed_version()}
    for name in _PACKAGES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return found


def machine() -> dict[str, Any]:
    """The machine that the process runs on."""
    system = os.uname()
    return {
        "host": system.nodename,
        "system": f"{system.sysname} {system.release}",
        "processor": system.machine,
        "cores": len(os.sched_getaffinity(0)),
        "pid": os.getpid(),
    }


def code_fingerprint(sources: list[bytes] | None = None) -> str:
    """The SHA-256 of the user's code, wherever its files are.

    Args:
        sources: Of all files; by default those that this process has loaded.
    """
    sources = loaded_sources() if sources is None else sources
    digests = sorted(hashlib.sha256(source).digest() for source in sources)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def number_cell(number: Order | None) -> int | str | None:
    """An agent's number as a table has it."""
    return text_of(number) if isinstance(number, tuple) else number


def artifact_row(
    index: int, step: int, artifact: Any, codec: Codec, number_of: NumberOf
) -> tuple[Any, ...]:
    """The row of an artifact; of one whose class fails, which is logged, little more than that."""
    kind = class_name(type(artifact))
    try:
        return index, step, *_contents(artifact, kind, codec, number_of)
    except BaseException as error:  # user code may raise anything, SystemExit included
        if is_ctrl_c(error):
            raise
        log.exception("an artifact of %s is left out of the record", kind)
        return (index, step, None, None, kind, *[None] * (len(COLUMNS["artifacts"]) - 5))


def _contents(artifact: Any, kind: str, codec: Codec, number_of: NumberOf) -> tuple[Any, ...]:
    fields = artifact_fields(artifact, number_of)
    return (
        fields["agent"],
        fields["creator"],
        kind,
        fields["domain"],
        *(to_json(fields[name]) for name in ("evaluations", "framings", "features")),
        fields["object_class"],
        encode_object(codec, artifact.obj),
        None,
    )


def artifact_fields(artifact: Any, number_of: NumberOf) -> dict[str, Any]:
    """An artifact, without its object, as plain values: what a record has of it, by column."""

    def label(name: str) -> str:
        """A name as given; of an agent without one, whose name is its address, its number."""
        number = number_of(name)
        return name if number is None else text_of(number)

    creator, domain = artifact.creator, artifact.domain
    features = [[plain(key), plain(value)] for key, value in artifact.feature_values.items()]
    return {
        "agent": number_cell(number_of(creator)),
        "creator": label(creator),
        "class": class_name(type(artifact)),
        "domain": class_name(domain) if isinstance(domain, type) else str(plain(domain)),
        "evaluations": {label(name): plain(value) for name, value in artifact.evals.items()},
        "framings": {label(name): plain(value) for name, value in artifact.framings.items()},
        "features": {str(key): value for key, value in features},
        "object_class": class_name(type(artifact.obj)),
    }


def encode_object(codec: Codec, value: Any) -> bytes | None:
    """A value as bytes; None if it cannot be encoded, which is logged."""
    try:
        payload = codec.encode(value, root="the artifact's object")
    except CreamasError as error:
        log.warning("the object is left out of the record: %s", error)
        return None
    return b"".join(encode_frame(Kind.EVENT, 0, b"", payload.body, payload.parts))


def decode_object(codec: Codec, data: bytes) -> Any:
    """The reverse of `encode_object`.

    Raises:
        DecodeError: Its class is not here, or they are other bytes.
    """
    frames = FrameReader().receive_data(data)
    if len(frames) != 1:
        raise DecodeError("these are not the bytes of an object")
    return codec.decode(Payload(frames[0].body, frames[0].parts))
