"""How an environment comes to listen on its address, once, and serve calls there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from creamas_sc.errors import ConnectionLost
from creamas_sc.rpc.addresses import base_url, bind
from creamas_sc.rpc.auth import membership, user_membership
from creamas_sc.rpc.network import Network
from creamas_sc.runtime.event_loop import LoopHandle


class Listener:
    """Listens for an environment.

    Args:
        network: The environment's.
        place: Host and port; port 0 is any free one.

    Attributes:
        member: Membership in a simulation; None for an environment of the user's own.
        restarted: Whether it listens again where another process did.
        elsewhere: Host and port at which it listens in fact, if it has moved from its address.
        listens: Whether it has come to listen.
        closed: Set before the environment is closed: it does not come to listen any more.
    """

    def __init__(self, network: Network, place: tuple[str, int]) -> None:
        self.member = membership.get()
        self.restarted = False
        self.elsewhere: tuple[str, int] | None = None
        self.listens = False
        self.closed = False
        self._network = network
        self._host, self._port = place
        self._lock = trio.Lock()

    async def open(self, loop: LoopHandle, prepare: Callable[[], None]) -> None:
        """Start to listen, unless it has; see `Environment.open`.

        Args:
            loop: The environment's.
            prepare: Called when the address is bound, before any call is served.
        """
        network = self._network
        async with self._lock:
            if self.listens:
                return
            self._check_open()
            if self.elsewhere is None:
                port = await bind(self._host, self._port, self.restarted)
            else:
                port = await bind(*self.elsewhere)
            try:
                self._check_open()
                self._port = self._port or port.number
                network.loop = loop
                network.base_url = base_url(self._host, self._port)
                prepare()
                identity = (self.member or user_membership()).identity(network.base_url)
            except BaseException:
                port.close()
                raise
            await loop.nursery.start(partial(network.endpoint.run, port, identity))
            self.listens = True
            if self.closed:
                await network.endpoint.aclose()
                self._check_open()

    def _check_open(self) -> None:
        if self.closed:
            raise ConnectionLost("this environment is closed", may_have_run=False)
