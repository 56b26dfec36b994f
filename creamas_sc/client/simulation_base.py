"""What both clients know of a simulation that they are attached to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from creamas_sc.client.class_resolution import ClassName, RemoteClasses, version
from creamas_sc.rpc.exposed import Caller, Proxy
from creamas_sc.runtime.class_loading import MAIN
from creamas_sc.serializers import follow, get_serializers, to_serializers
from creamas_sc.simulation_api import Operation, SimulationAPI
from creamas_sc.wire.codec import Codec, Payload, References, Serializer
from creamas_sc.wire.extensions import TYPE, encode_type
from creamas_sc.wire.packing import EncodeHandler, Encoder, ext

__all__ = ["ENDING", "Attached", "Event", "numbered"]

# Operations after which the host ends.
ENDING = frozenset({"close", "destroy"})

Event = tuple[int, str, dict[str, Any]]


class _Agents:
    """Agents, as values: proxies that call through the client."""

    types = (Proxy,)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def describe(self, obj: Any) -> tuple[str, str]:
        return obj.addr, obj.class_name

    def resolve(self, address: str, class_name: str) -> Proxy:
        return Proxy(self._caller, address, class_name)


class _ScriptCodec(Codec):
    """Refuses classes of this process's script where the simulation's processes have another.

    Attributes:
        reach: What they can load, once it is known.
    """

    reach: RemoteClasses | None = None

    def __init__(self, serializers: Iterable[Serializer], references: References) -> None:
        super().__init__(serializers, references)
        self._encode_handlers[type] = self._encode_class
        self._encode_handlers[ClassName] = _encode_class_name

    def _handler_of(self, cls: type) -> EncodeHandler | None:
        if issubclass(cls, type):
            return self._encode_class
        self._check(cls)
        return super()._handler_of(cls)

    def _encode_class(self, encoder: Encoder, value: type) -> Any:
        self._check(value)
        return encode_type(encoder, value)

    def _check(self, cls: type) -> None:
        if cls.__module__ == MAIN and self.reach is not None:
            self.reach.name(cls)


def _encode_class_name(encoder: Encoder, value: ClassName) -> Any:
    return ext(TYPE, value.name.encode())


class Attached(SimulationAPI):
    """A simulation in a daemon.

    Attributes:
        name: Its name in the daemon.
        pid: The process of its host.
    """

    def __init__(self, daemon: str, name: str) -> None:
        self.name = name
        self.pid = 0
        self._daemon = daemon
        self._codec = _ScriptCodec(to_serializers(get_serializers()), references=_Agents(self))
        follow(self._codec.add)

    def _meet(self, told: Mapping[str, Any]) -> None:
        """Take what the host says of itself."""
        self.pid = told["pid"]
        python = version(told["python"])
        self._codec.reach = RemoteClasses(self._daemon, python, self.name, told["script"])

    def __repr__(self) -> str:
        where = f"in the daemon {self._daemon!r}, host pid {self.pid}"
        return f"<{type(self).__name__} {self.name!r} {where}>"

    def _encoded(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Payload:
        reach = self._codec.reach
        assert reach is not None
        return self._codec.encode(reach.arguments(operation, args, kwargs))

    @abstractmethod
    def call_agent(
        self, address: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call an exposed method of the agent at ``address``; what a `Proxy` does."""


def numbered(since: int | None, events: list[Event]) -> Iterator[Event]:
    """Events after number ``since``, with a "gap" where numbers are missing."""
    for number, name, details in events:
        if since is not None and number > since + 1:
            yield number - 1, "gap", {"lost": number - since - 1}
        since = number
        yield number, name, details
