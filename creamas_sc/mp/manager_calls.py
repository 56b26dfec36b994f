"""What the master asks of its slaves: calls of their managers, one or all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from creamas_sc.errors import ConnectionLost
from creamas_sc.mp.slave_pool import Slave
from creamas_sc.rpc.calls import Call, Calls
from creamas_sc.rpc.connection import Connection
from creamas_sc.rpc.endpoint import locate
from creamas_sc.rpc.node import Node
from creamas_sc.rpc.socket_stream import TRIO_LOOP
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.wire.codec import Payload
from creamas_sc.wire.protocol import ACKNOWLEDGE_SECONDS

__all__ = ["Answer", "ManagerCalls"]

T = TypeVar("T")

# What came of a call.
Answer = Payload | Exception


class ManagerCalls:
    """The managers of a multi-environment's slaves.

    Args:
        net: The master environment's.
        expects: Whether a slave is to come back: it is waited for.
        caused: The error of every call once the restart policy has ended the simulation.
    """

    def __init__(
        self,
        net: Node,
        expects: Callable[[Slave], bool],
        caused: Callable[[], Exception | None],
    ) -> None:
        self._net = net
        self._expects = expects
        self._caused = caused

    async def call(
        self,
        slave: Slave,
        method: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a slave's manager."""
        payload = self._net.codec.encode((args, dict(kwargs or {})))
        return await self._send(slave, method, payload, self.decoded, None)

    async def call_all(
        self,
        slaves: Sequence[Slave],
        method: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        answered: Callable[[Slave, Answer], T] | None = None,
        last_seconds: float | None = None,
    ) -> list[T]:
        """Call the managers of slaves, all at once; the first error cancels the rest.

        An answer that cannot be decoded is found once all are there, or one has failed.

        Args:
            answered: Makes the result of what came from a slave, or raises; `decoded` by default.
            last_seconds: After these the calls are given up.
        """
        take = answered or self.decoded
        payload = self._net.codec.encode((args, dict(kwargs or {})))
        links = [self._net.link(slave.address) for slave in slaves]
        ready = [link for link in links if link is not None and link.drained]
        if len(ready) < len(slaves) or any(map(self._expects, slaves)):
            # A task each, so that none waits for what another has to wait for first.
            return await at_once(
                lambda slave: self._send(slave, method, payload, take, last_seconds), slaves
            )
        return await self._send_all(slaves, ready, method, payload, take, last_seconds)

    async def _send_all(
        self,
        slaves: Sequence[Slave],
        links: Sequence[Connection],
        method: str,
        payload: Payload,
        answered: Callable[[Slave, Answer], T],
        last_seconds: float | None,
    ) -> list[T]:
        """Call all within this task; nothing is to be waited for before they are sent."""
        timeout = self._net.call_timeout() if last_seconds is None else last_seconds
        confirm = ACKNOWLEDGE_SECONDS if last_seconds is None else 0
        results: dict[Slave, T] = {}
        async with Calls(TRIO_LOOP, timeout, confirm) as calls:
            left: dict[Slave, Call] = {}
            for slave, link in zip(slaves, links, strict=True):
                number = locate(slave.address)[1]
                left[slave] = await calls.start(link, number, method, payload)

            async def take(slave: Slave) -> None:
                call = left.pop(slave)
                answer: Answer
                try:
                    answer = await calls.answer(call)
                except ConnectionLost as error:
                    answer = await self._net.explain(slave.address, error)
                except Exception as error:  # the callback's to judge
                    answer = error
                results[slave] = answered(slave, answer)

            while left:
                await calls.wait()
                failed = []
                for slave, call in [(slave, call) for slave, call in left.items() if call.ended]:
                    if call.succeeded:
                        await take(slave)
                    else:
                        failed.append(slave)
                if failed:  # at once, as to explain a loss may take a while
                    await at_once(take, failed)
        return [results[slave] for slave in slaves]

    async def _send(
        self,
        slave: Slave,
        method: str,
        payload: Payload,
        answered: Callable[[Slave, Answer], T],
        last_seconds: float | None,
    ) -> T:
        answer: Answer
        try:
            answer = await self._net.send(slave.address, method, payload, last_seconds=last_seconds)
        except Exception as error:  # the callback's to judge
            answer = error
        return answered(slave, answer)

    def decoded(self, slave: Slave, answer: Answer) -> Any:
        """What a slave's manager returned, or raised."""
        if not isinstance(answer, Exception):
            return self._net.codec.decode(answer)
        if isinstance(answer, ConnectionLost):
            cause = self._caused()
            if cause is not None:
                raise cause from answer
        raise answer
