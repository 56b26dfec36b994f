"""Where environments listen that have moved, and which processes are not theirs any more."""

from __future__ import annotations

from typing import NamedTuple

from creamas_sc.errors import ConnectionLost
from creamas_sc.rpc.addresses import split_address
from creamas_sc.wire.handshake import Identity


class Route(NamedTuple):
    """Where an environment listens that may have moved.

    Attributes:
        host, port: An empty host for what its address says.
        generation: The lowest that it may have; see `Identity`.
    """

    host: str
    port: int
    generation: int


class Routes(dict[str, Route]):
    """The routes to environments that have moved or are lost, by `base_url`."""

    def place(self, url: str) -> tuple[str, int]:
        """Host and port at which the environment of that `base_url` listens."""
        route = self.get(url)
        return route[:2] if route is not None and route.host else split_address(f"{url}0")[:2]

    def check(self, peer: Identity) -> None:
        """Check that a peer is not one that is thought to be gone.

        Raises:
            ConnectionLost: It is.
        """
        route = self.get(peer.address)
        if route is not None and peer.generation < route.generation:
            raise ConnectionLost(
                f"the process {peer.pid} at {peer.address} was given up: its machine was not heard",
                address=peer.address,
                may_have_run=False,
            )
