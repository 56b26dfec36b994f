"""The channel between a node and the supervisor: TLS, and in it the proof that both hold the key.

TLS hides what is sent from who listens on the network. The supervisor's certificate is made in
memory and signed by itself: it proves nothing. The proof is the handshake of `wire.handshake` that
follows inside, with the certificate that each end sees as a part of it: something between that
answers with a certificate of its own does not get past it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import trio
from anyio.abc import ByteStream

from creamas_sc.errors import ConnectionLost, HandshakeError, ProtocolError, StartError
from creamas_sc.rpc.connection import perform_handshake
from creamas_sc.rpc.socket_stream import TRIO_LOOP
from creamas_sc.runtime.installation import how_to_install
from creamas_sc.wire.handshake import Handshake, Identity
from supervisor.timeouts import HANDSHAKE_SECONDS, JOIN_SECONDS

# What nodes and their supervisor call what they are members of, in the handshake.
SIMULATION: Final = "nodes"
_NAME_LENGTH: Final = 100


@dataclass(frozen=True)
class Certificate:
    """A listener's certificate and private key, which are on no disk.

    Attributes:
        context: Has both of them.
        binding: What a handshake inside TLS is bound to.
    """

    context: ssl.SSLContext
    binding: bytes


class TlsStream(ByteStream):
    """A stream in TLS. It has no raw socket, so a connection sends all through `send`.

    Args:
        stream: Owned by it.
    """

    loop = TRIO_LOOP

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    @property
    def local_host(self) -> str:
        """The address of this end."""
        address: str = self._stream.transport_stream.socket.getsockname()[0]
        return address

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Read what has come, at most ``max_bytes``."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        """Write all of ``item``."""
        try:
            await self._stream.send_all(item)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Refuse: TLS has no half-closed streams here."""
        raise NotImplementedError("a stream in TLS cannot be half closed")

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """None: the socket must not be written to directly."""
        return {}


def new_certificate() -> Certificate:
    """Make a listener's certificate, with a new private key.

    Raises:
        StartError: The package that makes certificates is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise StartError(
            f"to listen for nodes needs the package cryptography: {how_to_install('nodes')}"
        ) from error
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "creamas-supervisor")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=36500))  # nobody checks: it goes with the process
        .sign(private, hashes.SHA256())
    )
    encoding = serialization.Encoding
    plain = serialization.NoEncryption()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    # Python reads them from files only: this one has no name, and is in memory.
    with os.fdopen(os.memfd_create("certificate"), "wb") as file:
        file.write(private.private_bytes(encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        file.write(certificate.public_bytes(encoding.PEM))
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return Certificate(context, _binding(certificate.public_bytes(encoding.DER)))


async def accept(stream: trio.SocketStream, certificate: Certificate, key: bytes) -> TlsStream:
    """Let a node prove itself, over a connection that was accepted; an error closes that.

    Raises:
        HandshakeError: It speaks no TLS, or proved nothing.
        ProtocolError: It speaks another protocol inside TLS.
        TimeoutError: It took more than `HANDSHAKE_SECONDS`.
        anyio.EndOfStream, anyio.BrokenResourceError, OSError: It is gone.
    """
    tls = trio.SSLStream(stream, certificate.context, server_side=True, https_compatible=True)
    with anyio.fail_after(HANDSHAKE_SECONDS):
        await _start_tls(tls)
        return await _prove(tls, _identity("supervisor", key), certificate.binding, client=False)


async def connect(host: str, port: int, key: bytes) -> TlsStream:
    """Connect to the supervisor that listens for nodes at ``host`` and ``port``.

    Raises:
        ConnectionLost: Nothing listens there, or it does not answer.
        HandshakeError: It has another key, or something else listens there.
    """
    place = f"{host}:{port}"
    try:
        with anyio.fail_after(JOIN_SECONDS):
            stream = await trio.open_tcp_stream(host, port)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # see the module: the handshake proves who it is
            tls = trio.SSLStream(stream, context, https_compatible=True)
            await _start_tls(tls)
            seen = _binding(tls.getpeercert(binary_form=True))
            return await _prove(tls, _identity("node", key), seen, client=True)
    except HandshakeError as error:
        raise HandshakeError(
            f"{place} has another key, or is no supervisor that listens for nodes: {error}"
        ) from error
    except TimeoutError:
        reason = f"{place} did not answer within {JOIN_SECONDS:g} s"
        raise ConnectionLost(reason, may_have_run=False) from None
    except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
        reason = f"{place} closed the connection, instead of taking it"
        raise ConnectionLost(reason, may_have_run=False) from error
    except OSError as error:
        if isinstance(error.__cause__, ExceptionGroup):  # a host may have several addresses
            error = error.__cause__.exceptions[0]  # type: ignore[assignment]
        what = "nothing listens at" if isinstance(error, ConnectionError) else "cannot reach"
        reason = f"{what} {place}: {error.strerror or error}"
        raise ConnectionLost(reason, may_have_run=False) from None
    except ProtocolError as error:
        raise HandshakeError(f"{place} is no supervisor that listens for nodes: {error}") from error


def _identity(role: str, key: bytes) -> Identity:
    return Identity(SIMULATION, key, role, socket.gethostname()[:_NAME_LENGTH], os.getpid())


def _binding(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


async def _start_tls(tls: trio.SSLStream[trio.SocketStream]) -> None:
    """Do the handshake of TLS; an error closes the stream."""
    try:
        await tls.do_handshake()
    except BaseException as error:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(tls)
        if not isinstance(error, trio.BrokenResourceError):
            raise
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            raise HandshakeError(f"no TLS: {cause.reason}") from error
        raise anyio.BrokenResourceError from error


async def _prove(
    tls: trio.SSLStream[trio.SocketStream], identity: Identity, binding: bytes, *, client: bool
) -> TlsStream:
    stream = TlsStream(tls)
    await perform_handshake(
        stream, Handshake(identity, client=client, discreet=not client, binding=binding)
    )
    return stream
