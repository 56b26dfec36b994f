"""Who may talk: both ends prove that they hold the simulation's key, which never travels.

Three HELLO frames, the client's first::

    client  body: version, simulation, role, address, pid, nonce
    server  body: its own version, ...         meta: MAC("server", both bodies)
    client  body: empty                        meta: MAC("client", both bodies)

A MAC (HMAC-SHA256) covers both bodies whole: nothing that is sent in clear can be altered, and
the nonces keep an old proof from being used again. An end that refuses says why in a HELLO. A
server says who it is only to a client that names its simulation. The client has to name it first,
in clear: the server cannot prove itself, nor a refusal be explained, before both know which key.

The client can say whom it called: another member of the simulation that answers in its place gets
no proof. All this does not show that nobody sits between the ends and passes the handshake on. Over
a unix socket the kernel shows it, by the user at the other end; on a network the frames that follow
travel in records under `record_keys` (see `wire.sealing`), or all is inside TLS and bound to it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from os import urandom
from typing import Final

import msgpack

from creamas_sc.errors import HandshakeError
from creamas_sc.foreign import printable
from creamas_sc.wire.frames import HELLO_FRAME_BYTES, Frame, Kind, encode_frame
from creamas_sc.wire.sealing import RecordKeys

MIN_KEY_BYTES: Final = 16
_VERSION: Final = 2
_NONCE_BYTES: Final = 32
_REFUSED: Final = b"refused"
_TYPES: Final = [int, str, str, str, int, int, bytes]


@dataclass(frozen=True)
class Identity:
    """An end of a connection.

    Attributes:
        simulation: Id of the simulation; sent in clear.
        key: The simulation's secret; empty in what is known of a peer.
        role: "master", "slave", "client" or "environment".
        generation: Higher than that of whoever had this address before, if peers are to tell the
            two apart.
    """

    simulation: str
    key: bytes = field(repr=False)
    role: str
    address: str
    pid: int
    generation: int = 0


class Handshake:
    """One end of a handshake.

    Feed it the peer's frames and send what `data_to_send` returns, also after an error: it holds
    the refusal then, which tells the peer why. Where it stands is kept by a generator, which each
    frame moves on to its next ``yield``.

    Args:
        client: Whether it is the end that connected, which speaks first.
        accepts: For a client: whether the address of who answers is that of who was called; None
            accepts all.
        discreet: Whether a peer of another simulation is not told which one this is: on a network
            it may be anybody.
        binding: What both ends see of what carries the frames, such as a certificate. The proofs
            cover it: who passes the handshake on from another carrier is refused.

    Raises:
        ValueError: The key is too short, or the other fields too long.

    Attributes:
        complete: Whether the peer has proved itself; what is left to send must still be sent.
    """

    complete = False
    _over = False
    _peer: Identity | None = None
    _transcript = b""

    def __init__(
        self,
        identity: Identity,
        *,
        client: bool,
        accepts: Callable[[str], bool] | None = None,
        discreet: bool = False,
        binding: bytes = b"",
    ) -> None:
        if len(identity.key) < MIN_KEY_BYTES:
            raise ValueError(f"a key has at least {MIN_KEY_BYTES} bytes, not {len(identity.key)}")
        self._identity = identity
        self._client = client
        self._accepts = accepts
        self._discreet = discreet
        self._binding = binding
        self._outgoing: list[bytes] = []
        claims = [identity.simulation, identity.role, identity.address, identity.pid]
        numbers = identity.generation, urandom(_NONCE_BYTES)
        self._hello: bytes = msgpack.packb([_VERSION, *claims, *numbers])
        if len(self._hello) + hashlib.sha256().digest_size > HELLO_FRAME_BYTES:
            raise ValueError(f"simulation, role and address are too long: {claims}")
        self._steps = self._as_client() if client else self._as_server()
        next(self._steps)

    @property
    def peer(self) -> Identity:
        """The peer, once the handshake is complete; its ``key`` is empty."""
        if self._peer is None or not self.complete:
            raise RuntimeError("the handshake is not complete")
        return self._peer

    def record_keys(self) -> RecordKeys:
        """Keys for what follows, known to both ends and to nobody between; once it is complete."""
        if not self.complete:
            raise RuntimeError("the handshake is not complete")
        client, server = self._mac(b"records of the client"), self._mac(b"records of the server")
        return RecordKeys(client, server) if self._client else RecordKeys(server, client)

    def data_to_send(self) -> list[bytes]:
        """What is to be written now; each piece is returned once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, frame: Frame) -> None:
        """Take the peer's next frame.

        Raises:
            HandshakeError: The peer is of another simulation, cannot prove itself, speaks another
                version or something else, or has refused. The handshake is over.
        """
        if self._over:
            raise HandshakeError("a handshake that is over got another frame")
        self._over = True  # unless all below is as it should be
        if frame.kind is not Kind.HELLO or frame.call_id or frame.parts:
            self._refuse(f"expected a hello, not {frame.kind.name}")
        if len(frame.body) + len(frame.meta) > HELLO_FRAME_BYTES:
            self._refuse(f"a hello has at most {HELLO_FRAME_BYTES} bytes")
        if frame.meta == _REFUSED:
            reason = _quoted(frame.body[:500].decode(errors="replace"))
            raise HandshakeError(f"the peer refused: {reason}")
        try:
            self._steps.send(frame)
            self._over = False
        except StopIteration:
            self.complete = True

    def _as_client(self) -> Generator[None, Frame]:
        self._send(body=self._hello)
        answer = yield
        server = self._handle_hello(answer.body)
        self._transcript = _joined(self._hello, answer.body) + self._binding
        self._verify(b"server", answer.meta)
        if self._accepts is not None and not self._accepts(server.address):
            self._refuse(f"{server.address} answered, which was not called")
        self._send(meta=self._mac(b"client"))

    def _as_server(self) -> Generator[None, Frame]:
        hello = yield
        self._handle_hello(hello.body)
        self._transcript = _joined(hello.body, self._hello) + self._binding
        self._send(meta=self._mac(b"server"), body=self._hello)
        proof = yield
        self._verify(b"client", proof.meta)

    def _handle_hello(self, hello: bytes) -> Identity:
        try:
            fields = msgpack.unpackb(hello)
        except (ValueError, RecursionError, msgpack.UnpackException):
            fields = None
        if type(fields) is not list or not fields or type(fields[0]) is not int:
            self._refuse("a malformed hello")
        if fields[0] != _VERSION:
            self._refuse(f"protocol version {fields[0]} met version {_VERSION}")
        if [type(each) for each in fields] != _TYPES or len(fields[6]) != _NONCE_BYTES:
            self._refuse("a malformed hello")
        _, simulation, role, address, pid, generation, _ = fields
        ours = self._identity
        if simulation != ours.simulation:
            claim = _quoted(f"{role} {address} of simulation {simulation!r}")
            self._refuse(
                f"{claim} met {ours.role} {ours.address} of simulation {ours.simulation!r}",
                "this is another simulation" if self._discreet else None,
            )
        self._peer = Identity(simulation, b"", role, address, pid, generation)
        return self._peer

    def _verify(self, label: bytes, mac: bytes) -> None:
        if not hmac.compare_digest(self._mac(label), mac):
            self._refuse(f"a wrong key for simulation {self._identity.simulation!r}")

    def _mac(self, label: bytes) -> bytes:
        return hmac.digest(self._identity.key, _joined(label, self._transcript), "sha256")

    def _send(self, meta: bytes = b"", body: bytes = b"") -> None:
        self._outgoing.append(b"".join(encode_frame(Kind.HELLO, 0, meta, body)))

    def _refuse(self, reason: str, answer: str | None = None) -> None:
        """Raise the reason, and send it to the peer, or another answer."""
        reason = printable(reason)  # it may name what a stranger calls itself
        self._send(meta=_REFUSED, body=(answer or reason).encode(errors="replace")[:500])
        raise HandshakeError(reason)


def _quoted(text: str) -> str:
    """What a stranger says; blanks that would make it look like lines of its own become one."""
    return re.sub(r"\s{2,}", " ", printable(text))


def _joined(*pieces: bytes) -> bytes:
    """The pieces, such that no two lists of them give the same bytes."""
    return b"".join(struct.pack("!I", len(piece)) + piece for piece in pieces)
