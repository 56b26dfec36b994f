"""What the master asks of its slaves: calls of their managers, one or all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from creamas_sc.core.network import Network
from creamas_sc.errors import AgentErrors, ConnectionLost, first_error
from creamas_sc.mp.slaves import Slave
from creamas_sc.util import create_tasks
from creamas_sc.wire.codec import Payload

__all__ = ["Answer", "Managers", "at_once"]

T = TypeVar("T")

# What came of a call.
Answer = Payload | Exception


async def at_once(slaves: Sequence[Slave], work: Callable[[Slave], Awaitable[T]]) -> list[T]:
    """Do ``work`` for all slaves at once; the first error cancels the rest."""
    try:
        return await create_tasks(work, slaves, flatten=False)
    except AgentErrors:
        raise
    except ExceptionGroup as group:
        raise first_error(group.exceptions) from None


class Managers:
    """The managers of a multi-environment's slaves.

    Args:
        net: The master environment's.
        expects: Whether a slave is to come back: it is waited for.
        caused: The error of every call once the restart policy has ended the simulation.
    """

    def __init__(
        self,
        net: Network,
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
        addresses = [slave.address for slave in slaves]
        if not self._net.can_send(addresses) or any(map(self._expects, slaves)):
            # A task each, so that none waits for what another has to wait for first.
            return await at_once(
                slaves, lambda slave: self._send(slave, method, payload, take, last_seconds)
            )
        results: list[Any] = [None] * len(slaves)

        def note(position: int, answer: Answer) -> None:
            results[position] = take(slaves[position], answer)

        await self._net.send_all(addresses, method, payload, note, last_seconds=last_seconds)
        return results

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
