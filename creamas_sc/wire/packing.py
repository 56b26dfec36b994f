"""msgpack with extensions: nesting, depth and out-of-band parts of one value at a time.

msgpack's C code handles the plain types; every other value reaches a hook, here, which looks up
what to do by exact type or by extension code. Extensions hold packed values themselves, so each
level of them has its own packer or unpacker, kept from value to value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgpack

from creamas_sc.errors import DecodeError, EncodeError
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.wire.collisions import Collisions
from creamas_sc.wire.columns import FEW, Columns
from creamas_sc.wire.frames import MAX_PARTS, Buffer

LARGE_BYTES: Final = 64 * 2**10
"""From this size on, in bytes, binary data travels out of band."""
MAX_DEPTH: Final = 100
"""How many extensions (tuples, sets, objects ...) may be nested; lists and dicts: 1024."""
# msgpack's C code recurses, some 400 bytes of stack for each list: 1024 lists between any two of
# a hundred tuples would end the process. So few lists are allowed below the first few tuples.
_UNGUARDED_DEPTH: Final = 4
_GUARDED_NESTING: Final = 32
# Up to so many extensions in a message need no look at their hashes.
_UNGUARDED_EXTENSIONS: Final = 100
# Unpackers for this much data are kept; they need no C stack, and less time than unpackb().
_SMALL_BYTES: Final = 4096
_COMPACTED_TYPES: Final = frozenset({bytes, bytearray, memoryview, list, dict})
BYTES_PART: Final = 19
COLUMNS: Final = 20

EncodeHandler: TypeAlias = "Callable[[Encoder, Any], Any]"
DecodeHandler: TypeAlias = Callable[["Decoder", bytes], Any]


class TooDeep(EncodeError):
    """The value is nested too deeply, or holds itself."""


def ext(code: int, data: bytes) -> Any:
    """An extension; ``msgpack.ExtType()`` without its checks, which cost more than the packing."""
    return tuple.__new__(msgpack.ExtType, (code, data))


def is_call(value: Any) -> bool:
    """Whether a value is a call's ``(args, kwargs)``."""
    return (
        type(value) is tuple
        and len(value) == 2
        and type(value[0]) is tuple
        and type(value[1]) is dict
    )


class Encoder:
    """Packs one value at a time, and collects its parts.

    Args:
        handlers: What to do with a value of a type; shared, and grown by ``find_handler``.
        find_handler: Called for a type that is not among ``handlers``.
        columns: Folds long lists and dicts.
        unicode_errors: As of ``str.encode``; other than strict is slower.
    """

    def __init__(
        self,
        handlers: dict[type, EncodeHandler],
        find_handler: Callable[[type], EncodeHandler],
        columns: Columns,
        unicode_errors: str | None = None,
    ) -> None:
        self.parts: list[Buffer] = []
        self._columns = columns
        self._handlers = handlers
        self._find_handler = find_handler
        self._options: dict[str, Any] = {
            "strict_types": True,
            "default": self._hook,
            "unicode_errors": unicode_errors,
            "buf_size": 1024,  # Grows; there may be one a level.
        }
        self._packs: list[Callable[[Any], bytes]] = []
        self._depth = 0

    def release(self) -> None:
        """Give up the buffers, which the cycle with ``_hook`` would keep until it is collected."""
        self._packs.clear()

    def _hook(self, value: Any) -> Any:
        kind = type(value)
        handler = self._handlers.get(kind) or self._find_handler(kind)
        return handler(self, value)

    def pack(self, value: Any) -> bytes:
        """Pack ``value``; handlers call this for what their extension holds."""
        depth = self._depth
        if depth >= _UNGUARDED_DEPTH:
            _check_nesting(value)
        if depth == len(self._packs):
            if depth > MAX_DEPTH:
                raise TooDeep(f"more than {MAX_DEPTH} tuples or objects within each other")
            self._packs.append(msgpack.Packer(**self._options).pack)
        self._depth = depth + 1
        packed = self._packs[depth](value)
        self._depth = depth
        return packed

    def compact(self, value: Any) -> Any:
        """Replace large bytes and long lists and dicts by their compact forms.

        This looks at the value itself and at its items. Large bytes go out of band; long lists and
        dicts into columns, where that pays.

        Raises:
            EncodeError: There is a bytearray or memoryview, which msgpack would turn into bytes.
        """
        compacted = self._compact(value)
        if compacted is not value:
            return compacted
        kind = type(value)
        if kind is tuple or kind is list:
            items = value
        elif kind is dict:
            items = value.values()
        else:
            return value
        if len(value) <= MAX_PARTS:
            for item in items:
                if type(item) in _COMPACTED_TYPES:
                    break
            else:
                return value
            compacted = map(self._compact, items)
            return dict(zip(value, compacted, strict=True)) if kind is dict else kind(compacted)
        return value

    def _compact(self, value: Any) -> Any:
        kind = type(value)
        if kind is bytes:
            if len(value) >= LARGE_BYTES and len(self.parts) < MAX_PARTS:
                return ext(BYTES_PART, self.add_part(value).to_bytes(2, "big"))
        elif kind is list or kind is dict:
            if len(value) >= FEW:
                column = self._columns.fold(value)
                if column is not None:
                    return ext(COLUMNS, self.pack(column))
        elif kind is bytearray or kind is memoryview:
            raise EncodeError("use bytes instead", type_name=kind.__name__)
        return value

    def add_part(self, part: Buffer) -> int:
        """Send ``part`` out of band; return its index. At most `MAX_PARTS`."""
        self.parts.append(part)
        return len(self.parts) - 1


def _check_nesting(value: list[Any]) -> None:
    """Bound the nesting of lists and dicts in ``value``, up to the next extensions."""
    level: list[Any] = [value]
    for _ in range(_GUARDED_NESTING):
        # By identity, or lists that hold themselves twice would double with every level.
        below: dict[int, Any] = {}
        for container in level:
            items = container.values() if type(container) is dict else container
            below |= {id(item): item for item in items if type(item) is list or type(item) is dict}
        if not below:
            return
        level = list(below.values())
    raise TooDeep("too many lists or dicts within tuples or objects")


class Decoder:
    """Unpacks one value at a time.

    Args:
        handlers: What to do with an extension of a code.
        hashed: Codes of those whose values have a hash that can be calculated.

    Attributes:
        parts: The parts that came with the value.
    """

    def __init__(
        self, handlers: dict[int, DecodeHandler], hashed: frozenset[int] = frozenset()
    ) -> None:
        self.parts: Sequence[Buffer] = ()
        self._handlers = handlers
        self._hashed = hashed
        self._extensions = 0
        self._collisions: Collisions | None = None
        self._options: dict[str, Any] = {
            "ext_hook": self._hook,
            "strict_map_key": False,
            # msgpack's own extension, which nothing here sends: as floats, since the hashes of its
            # Timestamp objects can be calculated.
            "timestamp": 1,
            "unicode_errors": "surrogatepass",
        }
        self._unpackers: list[Any] = []
        self._depth = 0

    def _hook(self, code: int, data: bytes) -> Any:
        handler = self._handlers.get(code)
        if handler is None:
            raise DecodeError(f"unknown extension {code}")
        value = handler(self, data)
        self._extensions += 1
        if self._extensions >= _UNGUARDED_EXTENSIONS and code in self._hashed:
            if self._collisions is None:
                self._collisions = Collisions()
            self._collisions.add(value)
        return value

    def part(self, index: int) -> Buffer:
        """The part of that number."""
        if not 0 <= index < len(self.parts):
            raise DecodeError(f"part {index} of {len(self.parts)} parts")
        return self.parts[index]

    def unpack(self, data: Buffer) -> Any:
        """Unpack ``data``; handlers call this for what their extension holds."""
        depth = self._depth
        if depth == len(self._unpackers):
            if depth > MAX_DEPTH:
                raise DecodeError(f"more than {MAX_DEPTH} tuples or objects within each other")
            self._unpackers.append(self._new_unpacker(_SMALL_BYTES))
        self._depth = depth + 1
        size = len(data)
        unpacker = self._unpackers[depth] if size <= _SMALL_BYTES else self._new_unpacker(size)
        end = unpacker.tell() + size
        unpacker.feed(data)
        value = unpacker.unpack()
        if unpacker.tell() != end:
            raise DecodeError("bytes after the end of a value")
        self._depth = depth
        if not depth:  # the values are not kept any longer
            self._extensions, self._collisions = 0, None
        return value

    def unpack_list(self, data: bytes, length: int | None = None) -> list[Any]:
        """Unpack what must be a list, of ``length`` items if that is given."""
        value = self.unpack(data)
        if type(value) is not list or (length is not None and len(value) != length):
            raise DecodeError("an extension does not hold what it should")
        return value

    def _new_unpacker(self, size: int) -> Any:
        # No array may announce more items than there are bytes.
        return msgpack.Unpacker(read_size=size, max_buffer_size=size, **self._options)


class Undecodable:
    """Stands in place of a value that could not be decoded; ``error`` says why."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @classmethod
    def within(cls, value: Any) -> Undecodable | None:
        """The first one in ``value``, as a `LenientDecoder` has made it."""
        if type(value) is dict:
            value = [*value, *value.values()]
        if type(value) in (list, tuple):
            return next(filter(None, map(cls.within, value)), None)
        return value if isinstance(value, cls) else None


class LenientDecoder(Decoder):
    """Puts an `Undecodable` in place of each value in plain lists and dicts that it cannot decode.

    To find out whose fault it is when a `Decoder` has failed.
    """

    _within_value = False

    def _hook(self, code: int, data: bytes) -> Any:
        if self._within_value or code == COLUMNS:
            return super()._hook(code, data)
        depth, self._within_value = self._depth, True
        try:
            return super()._hook(code, data)
        except BaseException as error:  # user code may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            self._depth = depth
            del self._unpackers[depth:]
            return Undecodable(error)
        finally:
            self._within_value = False
