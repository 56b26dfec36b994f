"""States as bytes: what the codec carries, and what an object holds twice arrives as one.

A state is read in another process, with slaves at other addresses. So where it has an agent's
address, as a value, as a key or within a text, that is replaced when it is decoded. An agent that
it holds as an object is the agent again if it lives in the same environment, and a proxy otherwise.

Beside what travels between processes, these are carried: deque, OrderedDict, Counter, defaultdict,
and random generators (``random.Random``, numpy's ``Generator``) with how far they have got.
"""

from __future__ import annotations

import random
import re
import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from creamas_sc.checkpoints.sharing import Held, Sharing, StateOf, attributes_of
from creamas_sc.errors import DecodeError, EncodeError
from creamas_sc.runtime.class_loading import load_class
from creamas_sc.wire.codec import Codec, Payload, Serializer, object_encoder, wire_state_of
from creamas_sc.wire.columns import References
from creamas_sc.wire.encode_errors import explained, name_of
from creamas_sc.wire.extensions import HASHED, NAMED_TUPLE, SERIALIZED, travel_name
from creamas_sc.wire.frames import Frame, Kind, encode_frame
from creamas_sc.wire.named_values import is_named_tuple, is_plain_dataclass
from creamas_sc.wire.packing import Decoder, EncodeHandler, Encoder, ext

# Extensions beside those of the protocol.
_FIRST: Final = 100  # [number, value]: an object that may come again
_AGAIN: Final = 101  # [number]
_PLACE: Final = 102  # the environment
# [number, class, packed attributes]: of a dataclass, all that it has; it may hold itself
_ATTRIBUTES: Final = 103
_BYTEARRAY: Final = 104  # its bytes

_ADDRESS: Final = re.compile(r"tcp://[^\s/]+:[0-9]+/[0-9]+")
_GENERATOR: Final = "numpy.random:Generator"
_BIT_GENERATORS: Final = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})


class StateCodec(Codec):
    """Encodes and decodes states; for one thread.

    Args:
        codec: Knows the user's classes.
        references: Knows agents.
        environment: What stands for itself: where the state's owner lives.
        addresses: An agent's address in the state -> where it is now.
    """

    def __init__(
        self,
        codec: Codec,
        references: References,
        environment: Any,
        addresses: Mapping[str, str] | None = None,
    ) -> None:
        self._states_of: dict[type, StateOf | None] = {}
        self._sharing = Sharing((), self._state_of_class)
        self._numbers: dict[int, int] = {}
        self._under_way: set[int] = set()
        self._held: list[Any] = []
        self._decoded: dict[int, Any] = {}
        self._environment = environment
        self._addresses = addresses or {}
        super().__init__(codec.serializers, references)
        self._encode_handlers[set] = self._once(self._encode_handlers[set])
        self._encode_handlers[Held] = self._once(_encode_held)
        self._decode_handlers |= {
            _FIRST: self._decode_first,
            _AGAIN: lambda decoder, data: self._decoded[decoder.unpack_list(data, 1)[0]],
            _PLACE: lambda decoder, data: self._environment,
            _ATTRIBUTES: self._decode_attributes,
            _BYTEARRAY: lambda decoder, data: bytearray(data),
        }
        for serializer in _collections():
            self.add(serializer)

    def add(self, serializer: Serializer) -> None:
        """As `Codec.add`."""
        super().add(serializer)

        def encode(encoder: Encoder, value: Any) -> Any:
            state = encoder.compact(self._state_of(value))
            return ext(SERIALIZED, encoder.pack([serializer.name, state]))

        self._encode_handlers[serializer.cls] = self._once(encode)

    def to_frame(self, value: Any, root: str, label: str = "") -> bytes:
        """A value as one piece of bytes; errors as of `encode`.

        Args:
            label: Read before the value is decoded, as the frame's ``meta``.
        """
        payload = self.encode(value, root)
        return b"".join(encode_frame(Kind.EVENT, 0, label.encode(), payload.body, payload.parts))

    def from_frame(self, frame: Frame) -> Any:
        """The reverse of `to_frame`.

        Raises:
            DecodeError: It is of a class that is not here, or no value.
        """
        self._decoded.clear()
        return self.decode(Payload(frame.body, frame.parts))

    # ---- encoding

    def encode(self, value: Any, root: str = "args") -> Payload:
        """As `Codec.encode`."""
        self._encoders.clear()  # a new one begins to count again
        try:
            self._sharing = Sharing(value, self._state_of_class)
            return super().encode(self._sharing.of(value), root)
        except Exception as error:  # user code may raise anything
            raise explained(value, root, error, self._failure_of) from None

    def _failure_of(self, value: Any) -> BaseException | None:
        try:
            value = self._sharing.of(value)
        except (EncodeError, RecursionError) as error:
            return error
        return super()._failure_of(value)

    def _new_encoder(self, unicode_errors: str | None = None) -> Encoder:
        self._held.clear()
        self._numbers.clear()
        self._under_way.clear()
        return super()._new_encoder(unicode_errors)

    def _state_of_class(self, cls: type) -> StateOf | None:
        try:
            return self._states_of[cls]
        except KeyError:
            return self._states_of.setdefault(cls, self._find_state(cls))

    def _find_state(self, cls: type) -> StateOf | None:
        """What says what is kept of the objects of a class, if they may hold others."""
        if cls is getattr(sys.modules.get("numpy.random"), "Generator", None):
            self.add(_generators_of_numpy())
        for serializer in self.serializers:
            if cls is serializer.cls:
                return serializer.encode
        if self._references is not None and issubclass(cls, self._references.types):
            return None
        if issubclass(cls, type) or cls is type(self._environment):
            return None
        if hasattr(cls, "_wire_state_") and hasattr(cls, "_from_wire_state_"):
            return wire_state_of
        if is_plain_dataclass(cls):
            return attributes_of
        return list if is_named_tuple(cls) else None

    def _state_of(self, value: Any) -> Any:
        return self._sharing.of(self._sharing.state_of(value))

    def _handler_of(self, cls: type) -> EncodeHandler | None:
        if cls is type(self._environment):
            return self._encode_place
        state_of = self._state_of_class(cls)
        if state_of is wire_state_of:
            return self._once(object_encoder(cls, self._state_of))
        if state_of is attributes_of:
            return self._attributes_encoder(cls)
        if state_of is list:
            name = travel_name(cls)
            return lambda encoder, value: ext(
                NAMED_TUPLE, encoder.pack([name, *self._state_of(value)])
            )
        handler = super()._handler_of(cls)
        return None if handler is None else self._once(handler)

    def _attributes_encoder(self, cls: Any) -> EncodeHandler:
        name = travel_name(cls)

        def encode(encoder: Encoder, value: Any) -> Any:
            number = self._numbers.get(id(value))
            if number is not None:
                return ext(_AGAIN, encoder.pack([number]))
            number = self._number(value)
            attributes = encoder.pack(encoder.compact(self._state_of(value)))
            return ext(_ATTRIBUTES, encoder.pack([number, name, attributes]))

        return encode

    def _number(self, value: Any) -> int:
        number = self._numbers[id(value)] = len(self._held)
        self._held.append(value)  # or something else might get its id
        return number

    def _encode_place(self, encoder: Encoder, value: Any) -> Any:
        if value is not self._environment:
            raise ValueError("another environment cannot be kept")
        return ext(_PLACE, b"")

    def _once(self, encode: EncodeHandler) -> EncodeHandler:
        """Encode an object where it comes first, and refer to that from then on."""

        def encode_once(encoder: Encoder, value: Any) -> Any:
            number = self._numbers.get(id(value))
            if number in self._under_way:
                raise EncodeError("it holds itself", type_name=name_of(type(value)))
            if number is not None:
                return ext(_AGAIN, encoder.pack([number]))
            number = self._number(value)
            self._under_way.add(number)
            data = encoder.pack([number, encode(encoder, value)])
            self._under_way.discard(number)
            return ext(_FIRST, data)

        return encode_once

    # ---- decoding

    def _new_decoder(self) -> Decoder:
        return _Moving(self._decode_handlers, HASHED, self.moved)

    def moved(self, text: str) -> str:
        """A text with each agent's address as it is now."""
        if "tcp://" not in text:
            return text
        return _ADDRESS.sub(lambda found: self._addresses.get(found[0], found[0]), text)

    def _decode_first(self, decoder: Decoder, data: bytes) -> Any:
        number, value = decoder.unpack_list(data, 2)
        self._decoded[number] = value
        return value

    def _decode_attributes(self, decoder: Decoder, data: bytes) -> Any:
        number, name, attributes = decoder.unpack_list(data, 3)
        cls: Any = load_class(name)
        if not is_plain_dataclass(cls):
            raise DecodeError(f"{name!r} is no dataclass")
        made = self._decoded[number] = object.__new__(cls)
        for attribute, value in decoder.unpack(attributes).items():
            object.__setattr__(made, attribute, value)  # a frozen one's, too
        return made

    def _decode_serialized(self, decoder: Decoder, data: bytes) -> Any:
        if _GENERATOR not in self._serializers and _GENERATOR.encode() in data:
            self.add(_generators_of_numpy())
        return super()._decode_serialized(decoder, data)


def _encode_held(encoder: Encoder, held: Held) -> Any:
    value = held.value
    if type(value) is memoryview:
        raise EncodeError("use bytes instead", type_name="memoryview")
    return ext(_BYTEARRAY, bytes(value)) if type(value) is bytearray else value


class _Moving(Decoder):
    """Replaces texts in all lists and dicts."""

    def __init__(self, handlers: Any, hashed: frozenset[int], moved: Callable[[str], str]) -> None:
        super().__init__(handlers, hashed)

        def move_items(items: list[Any]) -> list[Any]:
            for at, item in enumerate(items):
                if type(item) is str:
                    items[at] = moved(item)
            return items

        def move_pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
            return {
                moved(key) if type(key) is str else key: moved(value)
                if type(value) is str
                else value
                for key, value in pairs
            }

        self._options |= {"list_hook": move_items, "object_pairs_hook": move_pairs}


def _collections() -> list[Serializer]:
    """For classes of the standard library that agents have and that do not travel."""
    return [
        _serializer(deque, lambda of: [list(of), of.maxlen], lambda state: deque(*state)),
        _serializer(OrderedDict, lambda of: list(of.items()), OrderedDict),
        _serializer(Counter, dict, Counter),
        _serializer(
            defaultdict,
            lambda of: [of.default_factory, dict(of)],
            lambda state: defaultdict(*state),
        ),
        _serializer(random.Random, _random_state, _random_of),
    ]


def _serializer(cls: Any, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> Serializer:
    return Serializer(cls, f"{cls.__module__}:{cls.__qualname__}", encode, decode)


def _random_state(generator: random.Random) -> list[Any]:
    version, words, gauss = generator.getstate()
    return [version, array("I", words).tobytes(), gauss]


def _random_of(state: list[Any]) -> random.Random:
    version, words, gauss = state
    generator = random.Random()
    generator.setstate((version, tuple(array("I", words)), gauss))
    return generator


def _generators_of_numpy() -> Serializer:
    import numpy as np

    def encode(generator: Any) -> Any:
        bits = generator.bit_generator
        sequence = bits.seed_seq
        if not isinstance(sequence, np.random.SeedSequence):
            sequence = np.random.SeedSequence(0)  # it spawns no others
        children = sequence.n_children_spawned
        return [type(bits).__name__, bits.state, {**sequence.state, "n_children_spawned": children}]

    def decode(state: Any) -> Any:
        name, of_bits, of_sequence = state
        if name not in _BIT_GENERATORS:
            raise DecodeError(f"numpy has no bit generator {name!r}")
        bits = getattr(np.random, name)(np.random.SeedSequence(**of_sequence))
        bits.state = of_bits
        return np.random.Generator(bits)

    return Serializer(np.random.Generator, _GENERATOR, encode, decode)
