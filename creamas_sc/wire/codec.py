"""Values to bytes and back: equal values of the same types, or a refusal.

Carried are None, bool, int of any size, float, str, bytes, list, tuple, set, frozenset, dict,
complex, the ``datetime`` types (tzinfo: None, ``timezone``, ``ZoneInfo``), Decimal, UUID, classes
and functions of modules, numpy's arrays and scalars; members of Enums, NamedTuples and objects of
dataclasses (see `named_values`); objects whose class has a `Serializer`, or the pair of methods
``_wire_state_(self) -> dict`` and ``_from_wire_state_(cls, state)``; and, by reference, what
`References` knows. Any other subclass of a built-in type is refused, not reduced to its base.

What cannot be kept: msgpack turns a ``bytearray`` or ``memoryview`` within a list or dict into
bytes (elsewhere they are refused); objects that a value holds twice arrive as two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any, Final, NamedTuple

from creamas_sc.errors import DecodeError, EncodeError, LoadError
from creamas_sc.foreign import is_ctrl_c, summary_of
from creamas_sc.runtime.class_loading import load_class
from creamas_sc.runtime.gc_control import gc_paused
from creamas_sc.wire import extensions, named_values
from creamas_sc.wire.columns import Columns, References
from creamas_sc.wire.encode_errors import explained, name_of
from creamas_sc.wire.frames import MAX_FRAME_BYTES, Buffer
from creamas_sc.wire.packing import (
    COLUMNS,
    Decoder,
    EncodeHandler,
    Encoder,
    LenientDecoder,
    ext,
    is_call,
)

# A packer never shrinks: after a value larger than this, in bytes, it is not used again.
_KEPT_BYTES: Final = 2**20
# From this size on, in bytes, a value may hold thousands of lists and dicts.
_LARGE_BODY: Final = 2**15
# What a frame has besides: the table of its parts and its meta.
MAX_VALUE_BYTES: Final = MAX_FRAME_BYTES - 2**17
"""The largest value, encoded, in bytes."""
_SCALARS: Final = frozenset({type(None), bool, int, float, str})
# What msgpack packs without our help.
_PACKED: Final = _SCALARS | {bytes, list, dict}
_ADVICE: Final = (
    "make its class a dataclass, or register a serializer: creamas_sc.serializers.register(cls, "
    "encode, decode)"
)


class Payload(NamedTuple):
    """An encoded value: a body, and large pieces which travel beside it.

    A part may be a view of memory that the value still owns: it must be written before the value
    changes.
    """

    body: bytes
    parts: Sequence[Buffer] = ()


def payload_size(payload: Payload) -> int:
    """How many bytes a payload has."""
    return len(payload.body) + sum(memoryview(part).nbytes for part in payload.parts)


@dataclass(frozen=True)
class Serializer:
    """How objects of exactly the class ``cls`` travel; both ends must know it by ``name``.

    Attributes:
        encode: Object to any value that can be carried.
        decode: What ``encode`` returned to an equal object.
    """

    cls: type
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


class Codec:
    """Encodes and decodes; may be used from several threads at once.

    Raises:
        ValueError: Two serializers of one name.
    """

    def __init__(
        self, serializers: Iterable[Serializer] = (), references: References | None = None
    ) -> None:
        self._references = references
        self._columns = Columns(references)
        self._serializers: dict[str, Serializer] = {}
        self._classes: dict[str, Any] = {}
        self._encode_handlers = dict(extensions.ENCODERS)
        self._decode_handlers = {
            **extensions.DECODERS,
            **named_values.DECODERS,
            extensions.ARRAY: lambda *packed: _numpy_values().decode_array(*packed),
            extensions.SCALAR: lambda *packed: _numpy_values().decode_scalar(*packed),
            extensions.SERIALIZED: self._decode_serialized,
            extensions.OBJECT: self._decode_object,
            extensions.REFERENCE: self._decode_reference,
            COLUMNS: lambda decoder, data: self._columns.unfold(decoder.unpack(data)),
        }
        # Idle ones: encoding takes one from here, and returns it unless it failed.
        self._encoders: list[Encoder] = []
        self._decoders: list[Decoder] = []
        for serializer in serializers:
            if serializer.name in self._serializers:
                raise ValueError(f"cannot register another serializer for {serializer}")
            self.add(serializer)

    def add(self, serializer: Serializer) -> None:
        """Carry one more class, or one known already by other functions."""

        def encode(encoder: Encoder, value: Any) -> Any:
            state = encoder.compact(serializer.encode(value))
            return ext(extensions.SERIALIZED, encoder.pack([serializer.name, state]))

        self._serializers[serializer.name] = serializer
        self._encode_handlers[serializer.cls] = encode

    def encode(self, value: Any, root: str = "args") -> Payload:
        """Encode ``value``.

        Args:
            root: What the value is called in errors. For a call's ``(args, kwargs)`` leave it at
                "args": keyword arguments are called "kwargs" then.

        Raises:
            EncodeError: Some piece of the value cannot be carried; which one, and where it sits.
                Or the value is larger than `MAX_VALUE_BYTES`.
        """
        try:
            encoder = self._encoders.pop()
        except IndexError:
            encoder = self._new_encoder()
        try:
            body = _pack_top(encoder, value)
        except BaseException as error:  # user code may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            encoder = self._new_encoder("surrogatepass")
            body = self._pack_again(encoder, value, root, error)
        parts: Sequence[Buffer] = ()
        if encoder.parts:
            parts, encoder.parts = encoder.parts, []
        if len(body) < _KEPT_BYTES:
            self._encoders.append(encoder)
        else:
            encoder.release()
        payload = Payload(body, parts)
        if (parts or len(body) > _KEPT_BYTES) and payload_size(payload) > MAX_VALUE_BYTES:
            text = f"{payload_size(payload):,} bytes are over the limit of {MAX_VALUE_BYTES:,}"
            raise EncodeError(f"{root}: {text}", type_name=name_of(type(value)), path=root)
        return payload

    def decode(self, payload: Payload) -> Any:
        """The value that was encoded; arrays in it may be built upon the payload's parts.

        Raises:
            DecodeError: The bytes are not a value, or one of a class which is not here.
        """
        try:
            decoder = self._decoders.pop()
        except IndexError:
            decoder = self._new_decoder()
        try:
            body, decoder.parts = payload
            if len(body) < _LARGE_BODY:
                value = decoder.unpack(body)
            else:
                with gc_paused():
                    value = decoder.unpack(body)
        except DecodeError:
            raise
        except LoadError as error:
            raise DecodeError(str(error)) from error
        except BaseException as error:  # user code may raise anything, SystemExit included
            if is_ctrl_c(error):
                raise
            text = f"not an encoded value: {summary_of(error):.300}"
            raise DecodeError(text) from error
        decoder.parts = ()
        self._decoders.append(decoder)
        if type(value) is not list:
            return value
        last = value.pop() if value else None
        if type(last) is dict:
            return tuple(value), last
        if last is True:
            return tuple(value)
        if last is None and len(value) == 1 and type(value[0]) is list:
            return value[0]
        raise DecodeError("not an encoded value: a list of no known form")

    def decode_leniently(self, payload: Payload) -> Any:
        """As `decode`, with an `Undecodable` in place of each part that cannot be decoded."""
        lenient = copy(self)
        lenient._decoders = [LenientDecoder(self._decode_handlers, extensions.HASHED)]
        return lenient.decode(payload)

    def carries(self, cls: type) -> bool:
        """Whether it has a way to encode objects of exactly this class."""
        if cls in _PACKED or cls in self._encode_handlers:
            return True
        try:
            return self._handler_of(cls) is not None
        except LoadError:
            return False

    @property
    def serializers(self) -> list[Serializer]:
        """Those that it knows."""
        return list(self._serializers.values())

    # ---- encoding

    def _new_encoder(self, unicode_errors: str | None = None) -> Encoder:
        return Encoder(self._encode_handlers, self._find_handler, self._columns, unicode_errors)

    def _pack_again(self, encoder: Encoder, value: Any, root: str, error: BaseException) -> bytes:
        """Pack strings with lone surrogates, as undecodable file names have; else explain."""
        if isinstance(error, UnicodeEncodeError):
            try:
                return _pack_top(encoder, value)
            except BaseException as other:
                if is_ctrl_c(other):
                    raise
                error = other
        try:
            refusal = explained(value, root, error, self._failure_of)
        except BaseException as other:  # the value's class does not even bear questions
            if is_ctrl_c(other):
                raise
            refusal = EncodeError(f"{root}: cannot be carried: {summary_of(error)}", path=root)
        raise refusal from (None if isinstance(error, EncodeError) else error)

    def _failure_of(self, value: Any) -> BaseException | None:
        try:
            _pack_top(self._new_encoder("surrogatepass"), value)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            return error
        return None

    def _find_handler(self, cls: type) -> EncodeHandler:
        handler = self._handler_of(cls)
        if handler is None:
            raise EncodeError(_ADVICE, type_name=name_of(cls))
        self._encode_handlers[cls] = handler
        return handler

    def _handler_of(self, cls: type) -> EncodeHandler | None:
        if self._references is not None and issubclass(cls, self._references.types):
            return self._encode_reference
        if issubclass(cls, type):
            return extensions.encode_type
        if hasattr(cls, "_wire_state_") and hasattr(cls, "_from_wire_state_"):
            return object_encoder(cls)
        by_name = named_values.encoder_of(cls)
        if by_name is not None:
            return by_name
        # The values exist only once their modules are imported.
        for (module, name), handler in extensions.LATE_ENCODERS.items():
            if cls is getattr(sys.modules.get(module), name, None):
                return handler
        if sys.modules.get("numpy") is not None:
            from creamas_sc.wire import numpy_values

            return numpy_values.encoder_of(cls)
        return None

    def _encode_reference(self, encoder: Encoder, value: Any) -> Any:
        assert self._references is not None
        return ext(extensions.REFERENCE, encoder.pack(list(self._references.describe(value))))

    # ---- decoding

    def _new_decoder(self) -> Decoder:
        return Decoder(self._decode_handlers, extensions.HASHED)

    def _decode_reference(self, decoder: Decoder, data: bytes) -> Any:
        address, name = decoder.unpack_list(data, 2)
        if self._references is None or type(address) is not str or type(name) is not str:
            raise DecodeError("a reference to an agent, where none can be")
        return self._references.resolve(address, name)

    def _decode_serialized(self, decoder: Decoder, data: bytes) -> Any:
        name, state = decoder.unpack_list(data, 2)
        if name not in self._serializers:
            try:
                load_class(name)  # its module registers one when it is imported
                self._serializers[name]
            except (LoadError, KeyError, TypeError, AttributeError) as error:
                raise DecodeError(f"no serializer {name!r} is registered here") from error
        serializer = self._serializers[name]
        try:
            return serializer.decode(state)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            text = f"serializer {name!r} failed to decode: {summary_of(error)}"
            raise DecodeError(text) from error

    def _decode_object(self, decoder: Decoder, data: bytes) -> Any:
        name, state = decoder.unpack_list(data, 2)
        cls: Any = self._classes.get(name)
        if cls is None:
            cls = load_class(name)
            # Not what a metaclass makes up.
            if getattr_static(cls, "_from_wire_state_", None) is None:
                raise DecodeError(f"objects of class {name!r} do not travel")
            self._classes[name] = cls
        try:
            return cls._from_wire_state_(state)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            raise DecodeError(f"{name}._from_wire_state_ failed: {summary_of(error)}") from error


def _pack_top(encoder: Encoder, value: Any) -> bytes:
    """Pack a whole value.

    Arguments and results need no extension, which would cost more than the rest. The pair
    ``(args, kwargs)`` is the one list ``[*args, kwargs]``, any other tuple ``[*value, True]``; a
    value which is a list is ``[value, None]``, to tell it from these.
    """
    kind = type(value)
    if kind in _SCALARS:
        return encoder.pack(value)
    if kind is tuple:
        if is_call(value):
            args, kwargs = value
            if args:
                args = encoder.compact(args)
            if kwargs:
                kwargs = encoder.compact(kwargs)
            return encoder.pack([*args, kwargs])
        return encoder.pack([*encoder.compact(value), True])
    value = encoder.compact(value)
    return encoder.pack([value, None] if kind is list else value)


def wire_state_of(value: Any) -> dict[str, Any]:
    """What an object says is to be carried of it."""
    state = value._wire_state_()
    if type(state) is not dict:
        raise EncodeError("_wire_state_ must return a dict", type_name=name_of(type(value)))
    return state


def object_encoder(cls: type, state_of: Callable[[Any], Any] = wire_state_of) -> EncodeHandler:
    """Encodes what ``state_of`` returns for an object."""
    name = extensions.travel_name(cls)

    def encode(encoder: Encoder, value: Any) -> Any:
        return ext(extensions.OBJECT, encoder.pack([name, encoder.compact(state_of(value))]))

    return encode


def _numpy_values() -> Any:
    try:
        from creamas_sc.wire import numpy_values
    except ImportError as error:
        raise DecodeError("a numpy value came, and numpy is not installed here") from error
    return numpy_values
