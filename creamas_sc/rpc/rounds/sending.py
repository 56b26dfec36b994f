"""The frames that one environment sends the others of a step, as events of their connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import EncodeError
from creamas_sc.rpc.rounds.frames import (
    NOBODY,
    OTHERS,
    YOU,
    Failed,
    Piece,
    columns,
    event_name,
)
from creamas_sc.wire.codec import Codec, Payload

if TYPE_CHECKING:
    from creamas_sc.rpc.node import Node


class Sending:
    """Sends the frames of one step."""

    def __init__(self, node: Node, step: int) -> None:
        self._node = node
        self._names = {
            (content, more): event_name(step, content, more)
            for content in (NOBODY, YOU, OTHERS)
            for more in (False, True)
        }

    def post(self, url: str, payload: Payload, content: int = NOBODY, more: bool = False) -> None:
        """Send a peer one event, with what is sent next, or when that is urged."""
        link = self._node.endpoint.link(url)
        if link is not None:
            link.post(self._names[content, more], payload, lazily=True)

    def urge(self, urls: Iterable[str]) -> None:
        """Have all that was sent leave now.

        That is needed before anything is waited for, and before anything else is done if peers have
        something to do too. So frames of several rounds in which only one environment has something
        to do leave together, and it is not woken for each.
        """
        for url in urls:
            link = self._node.endpoint.link(url)
            if link is not None:
                link.out.urge()

    def send(self, url: str, piece: Piece, open_: int, content: int) -> list[Failed]:
        """Send a peer what was made for it; return the calls that cannot be encoded."""
        payloads: list[Payload] = []
        failed: list[Failed] = []
        self._encode(piece, open_, payloads, failed)
        for position, payload in enumerate(payloads, 1):
            self.post(url, payload, content, position < len(payloads))
        return failed

    def _encode(
        self, piece: Piece, open_: int, payloads: list[Payload], failed: list[Failed]
    ) -> None:
        """Encode a piece, or if it cannot be, its parts; single calls and answers fail then."""
        codec = self._node.codec
        try:
            payloads.append(codec.encode([open_, *columns(piece)], "a call"))
            return
        except EncodeError as error:
            refused = error
        halves = piece.halves()
        for half in halves:
            self._encode(half, open_, payloads, failed)
        if halves:
            return
        failures: list[Failed] = []
        for call in piece.calls:
            reason = _refusal(codec, (call.args, call.kwargs), "args") or refused
            failed.append((call.number, reason))
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
