"""What a request's frame says beside its arguments: whom it is for, which method, until when."""

from __future__ import annotations

from typing import Any

import msgpack

from creamas_sc.errors import ProtocolError

__all__ = ["RequestHeaders"]

# Of those without a deadline: agents are asked the same thing again and again.
MAX_KNOWN = 4096


class RequestHeaders:
    """One connection's metas, packed and unpacked; both remember the latest."""

    def __init__(self) -> None:
        self._packed: dict[tuple[Any, str], bytes] = {}
        self._unpacked: dict[bytes, tuple[Any, str, float | None]] = {}

    def pack(self, target: int | str | None, method: str, remaining: float | None) -> bytes:
        """The meta of a call that may take ``remaining`` seconds, or as long as it does."""
        if remaining is not None:
            packed: bytes = msgpack.packb((target, method, remaining))
            return packed
        key = target, method
        meta = self._packed.get(key)
        if meta is None:
            meta = self._packed[key] = msgpack.packb((target, method, None))
            if len(self._packed) > MAX_KNOWN:
                self._packed.clear()
        return meta

    def unpack(self, meta: bytes) -> tuple[Any, str, float | None]:
        """Target, method and remaining seconds; the target may be anything.

        Raises:
            ProtocolError: It is not that.
        """
        known = self._unpacked.get(meta)
        if known is not None:
            return known
        try:
            target, method, remaining = msgpack.unpackb(meta)
            if not isinstance(method, str) or not (remaining is None or remaining >= 0):
                raise TypeError("no method, or no seconds")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolError(f"malformed request: {error!r}") from error
        if remaining is None and isinstance(target, int | str | None):
            self._unpacked[meta] = target, method, None
            if len(self._unpacked) > MAX_KNOWN:
                self._unpacked.clear()
        return target, method, remaining
