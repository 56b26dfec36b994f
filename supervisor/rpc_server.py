"""Serves methods by name over one connection: to the owner, to a host, or to a client.

A call has target nil and ``(args, kwargs)`` as its payload. Its arguments are bound to the method's
signature first, so a peer that is wrong about it gets `BadArguments`, not a traceback. The codec
refuses what only decodes with a module that this process would have to import.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final

import trio
from anyio.abc import ByteStream

from creamas_sc.errors import BadArguments, CallRefused, ConnectionLost, DecodeError
from creamas_sc.rpc.connection import Connection, EventHandler, Request
from creamas_sc.runtime.log_setup import bound
from creamas_sc.wire import extensions, named_values
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, FrameReader
from creamas_sc.wire.packing import Decoder

# Python prints no number of more than 4,300 digits; seeds have 32 bytes at most.
MAX_INT_BYTES: Final = 64

Method = Callable[..., Awaitable[Any]]

# Extensions that need numpy or a user's module to be decoded.
_FOREIGN = (
    extensions.ARRAY,
    extensions.OBJECT,
    extensions.REFERENCE,
    extensions.SCALAR,
    extensions.SERIALIZED,
    extensions.TYPE,
    *named_values.DECODERS,
)


def start_apart(nursery: trio.Nursery, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
    """Start a task that outlives the call that starts it, without any of its context."""
    Context().run(nursery.start_soon, function, *args)


class PlainCodec(Codec):
    """Refuses values for which this process would have to import numpy or a user's module.

    And numbers of `MAX_INT_BYTES`, which Python could not print.
    """

    def __init__(self) -> None:
        super().__init__()
        for number in _FOREIGN:
            del self._decode_handlers[number]
        self._decode_handlers[extensions.INT] = _decode_int


def _decode_int(decoder: Decoder, data: bytes) -> Any:
    if len(data) > MAX_INT_BYTES:
        raise DecodeError(f"a number of {len(data)} bytes is over the limit of {MAX_INT_BYTES}")
    return extensions.DECODERS[extensions.INT](decoder, data)


# One for all connections: it takes fifty kilobytes.
CODEC: Final = PlainCodec()


class MethodServer:
    """Serves ``methods`` over one connection.

    Args:
        stream: Owned by the connection.
        methods: What can be called. Arguments that do not fit are refused by their signatures.
        name: The peer, in messages.
        reader, backlog: What was read from the stream before.
        max_unread_bytes: How much may wait for a peer that does not read.
        on_event: As of `Connection`.
    """

    def __init__(
        self,
        stream: ByteStream,
        methods: Mapping[str, Method],
        name: str,
        reader: FrameReader,
        backlog: Sequence[Frame] = (),
        max_unread_bytes: int | None = None,
        on_event: EventHandler | None = None,
    ) -> None:
        self.name = name
        self._methods = methods
        self._numbers = itertools.count(1)
        self.connection = Connection(
            stream,
            self._dispatch,
            codec=CODEC,
            reader=reader,
            backlog=backlog,
            name=name,
            max_unread_bytes=max_unread_bytes,
            on_event=on_event,
        )

    async def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Call a method of the peer; see `Connection.call` for what it raises."""
        payload = CODEC.encode((args, {}))
        answer = await self.connection.call(None, method, payload, timeout=timeout)
        return CODEC.decode(answer)

    def post(self, event: str, message: Any) -> None:
        """Send an event; there is no answer."""
        self.connection.post(event, CODEC.encode(message))

    def _dispatch(self, request: Request) -> Awaitable[Payload]:
        known = self._methods.get(request.method)
        if known is None or request.target is not None:
            offered = ", ".join(sorted(self._methods))
            method = f"{request.method!s:.100}"
            raise CallRefused(f"the supervisor has no method {method}; there are {offered}")
        return self._answer(known, request)

    async def _answer(self, method: Method, request: Request) -> Payload:
        try:
            given, named = CODEC.decode(request.payload)
            args, kwargs = tuple(given), {str(key): value for key, value in named.items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise BadArguments(f"{request.method}: malformed arguments: {error}") from error
        signature = inspect.signature(method)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            known = ", ".join(signature.parameters)
            raise BadArguments(f"{request.method}({known}): {error}") from error
        with bound(request=f"{self.name} #{next(self._numbers)}"):
            value = await method(*args, **kwargs)
        # Encoding what the peer does not read yet would take time from the others, and memory.
        await self.connection.out.wait_until_drained()
        if not self.connection.alive:
            raise ConnectionLost(f"no connection to {self.name}")
        return CODEC.encode(value)
