"""The frames that one environment sends the others of a step, as events of their connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import EncodeError
from creamas_sc.rpc.rounds.frames import (
    FRAME,
    NOBODY,
    Failed,
    Piece,
    columns,
    event_name,
)
from creamas_sc.wire.codec import Codec, Payload

if TYPE_CHECKING:
    from creamas_sc.rpc.network import Network


class Sending:
    """Sends the frames of one step."""

    def __init__(self, network: Network, step: int) -> None:
        self._network = network
        self._step = step
        self._names: dict[tuple[int, int], str] = {}

    def post(
        self, url: str, payload: Payload, content: int = NOBODY, following: int = FRAME
    ) -> None:
        """Send a peer one event, with what is sent next, or when that is urged."""
        link = self._network.endpoint.link(url)
        if link is not None:
            name = self._names.get((content, following))
            if name is None:
                name = event_name(self._step, content, following)
                self._names[content, following] = name
            link.post(name, payload, lazily=True)

    def urge(self, urls: Iterable[str]) -> None:
        """Have all that was sent leave now.

        That is needed before anything is waited for, and before anything else is done if peers have
        something to do too. So frames of several rounds in which only one environment has something
        to do leave together, and it is not woken for each.
        """
        for url in urls:
            link = self._network.endpoint.link(url)
            if link is not None:
                link.out.urge()

    def encode(self, piece: Piece, open_: int) -> tuple[list[Payload], list[Failed]]:
        """The payloads of the events that bring a piece, and what in it cannot be encoded."""
        payloads: list[Payload] = []
        failed: list[Failed] = []
        self._encode(piece, open_, payloads, failed)
        return payloads, failed

    def _encode(
        self, piece: Piece, open_: int, payloads: list[Payload], failed: list[Failed]
    ) -> None:
        """Encode a piece, or if it cannot be, its parts; single calls and answers fail then."""
        codec = self._network.codec
        try:
            payloads.append(codec.encode(columns(open_, piece), "a call"))
            return
        except EncodeError as error:
            refused = error
        halves = piece.halves()
        for half in halves:
            self._encode(half, open_, payloads, failed)
        if halves:
            return
        failures: list[Failed] = []
        for _, number, _, _, _, *arguments in piece.calls:
            failed.append((number, _refusal(codec, tuple(arguments), "args") or refused))
        for number, value in piece.answers:
            failures.append((number, _refusal(codec, value, "the reply") or refused))
        for number, _ in piece.failures:
            failures.append((number, EncodeError("the error of the call cannot be sent")))
        self._encode(Piece((), (), failures), open_, payloads, failed)


def _refusal(codec: Codec, value: Any, root: str) -> EncodeError | None:
    """Why a value cannot be encoded, if it is not only too large beside others."""
    try:
        codec.encode(value, root)
    except EncodeError as error:
        return error
    return None
