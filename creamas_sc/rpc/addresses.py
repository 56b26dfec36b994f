"""Addresses of environments and agents, and the ports that are in them.

An environment's address is ``tcp://host:port/``, an agent's is that and its number. The port is its
own on the machine: it is bound, so nobody else can have it. Whether anything listens at it depends
on the host:

    loopback (localhost, 127.0.0.1, ::1)   nothing: peers use the environment's unix socket
    any other host, or all (0.0.0.0)       TCP, for peers on other machines, beside the unix socket

An environment that may be restarted at its address must not lose its TCP port meanwhile: another
user could bind it first. So the process that restarts it holds the port too (`hold`), with a socket
that is bound and does not listen: between two lives peers are refused at once. The two sockets
share the port by SO_REUSEPORT, which the kernel allows only to sockets of one user that all ask for
it. The first life asks for it only once it listens, so a port that is in use is taken for
everybody, this user's other environments included.
"""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import trio

from creamas_sc.errors import StartError
from creamas_sc.runtime.validation import check_kind

# "localhost" means this machine everywhere (RFC 6761). A lookup would take a thread, and would load
# the system's resolver in every process.
_LOOPBACK = {"localhost": "127.0.0.1"}
_BACKLOG = 1024
_MAX_DIGITS = 18


def base_url(host: str, port: int) -> str:
    """``tcp://host:port/``, to which an agent's number is appended."""
    return f"tcp://[{host}]:{port}/" if ":" in host else f"tcp://{host}:{port}/"


def split_address(address: str) -> tuple[str, int, int]:
    """Host, port and agent number of ``tcp://host:port/number``.

    Raises:
        ValueError: The address is not of that form.
    """
    check_kind("addr", address, str)
    scheme, _, rest = address.partition("://")
    place, _, number = rest.partition("/")
    host, _, port = place.rpartition(":")
    wrong = "expected 'tcp://host:port/number'"
    if scheme == "tcp" and host and is_number(port) and is_number(number):
        if int(port) < 1 << 16:
            return host.strip("[]"), int(port), int(number)
        wrong = "a port is at most 65535"
    raise ValueError(f"addr: {address!r:.200} is not an agent's address: {wrong}")


def is_number(text: str) -> bool:
    """Whether ``text`` is a number of a length that Python reads in no time."""
    return text.isdecimal() and len(text) <= _MAX_DIGITS


@functools.lru_cache(maxsize=1 << 10)  # addresses come and go with slaves
def locate(address: str) -> tuple[str, int]:
    """`base_url` of the environment of an agent's address, and the agent's number."""
    host, port, number = split_address(address)
    return base_url(host, port), number


def numeric(host: str) -> str:
    """``host``, with an IP address in place of "localhost"."""
    return _LOOPBACK.get(host, host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant by ``host``."""
    return numeric(host).startswith("127.") or host == "::1"


def is_wildcard(host: str) -> bool:
    """Whether all addresses of a machine are meant by ``host``."""
    return host in ("0.0.0.0", "::", "")


def address_towards(host: str) -> str:
    """The address of this machine from which it connects to ``host``; blocks if that is a name.

    Raises:
        OSError: There is no way to it.
    """
    family, *_, place = socket.getaddrinfo(numeric(host), 1, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(place)  # which sends nothing
        name: str = sock.getsockname()[0]
        return name


async def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """The one address of ``host`` at which environments listen, and at which peers look for them.

    At another address that the name has, the same port may be another user's. With one address,
    port 0 is one port, too.

    Raises:
        OSError: The name has no address.
    """
    found = await anyio.getaddrinfo(numeric(host), port, type=socket.SOCK_STREAM)
    family, _, _, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, place


class Port(NamedTuple):
    """A port of this machine.

    Attributes:
        host: As it was asked for.
        number: From 1 to 65535.
        sock: Keeps the port from everybody else; None if somebody else has it.
        listener: Accepts peers of other machines; None if the host is a loopback address.
    """

    host: str
    number: int
    sock: socket.socket | None
    listener: trio.SocketListener | None

    def close(self) -> None:
        """Give the port back."""
        if self.listener is not None:
            self.listener.socket.close()
        if self.sock is not None:
            self.sock.close()


async def bind(host: str, port: int, restarted: bool = False) -> Port:
    """Have ``port`` of ``host`` (0 for any free one), and listen there unless it is loopback.

    Args:
        restarted: A process that ended had this port. Where peers connect over it, it is shared
            with the process that holds it; elsewhere it does not matter which one has it now.

    Raises:
        StartError: The address cannot be had; the message says which and why.
    """
    try:
        async with _unbound(host, port) as (sock, place):
            if is_loopback(place[0]):
                return _bind_loopback(sock, host, place, restarted)
            _bind(sock, place, shared=restarted)
            sock.listen(_BACKLOG)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
            return Port(host, sock.getsockname()[1], sock, listener)
    except (OSError, OverflowError) as error:
        why = "the port is taken" if _is_taken(error) else str(error)
        raise StartError(f"cannot listen on {host}:{port}: {why}") from None


async def hold(host: str, port: int) -> socket.socket | None:
    """Keep other users from a port at which a process of this user listens, also after its end.

    Returns:
        What keeps them from it until it is closed; None if nobody connects over it.

    Raises:
        StartError: The process has ended before, and somebody else has the port.
    """
    try:
        async with _unbound(host, port) as (sock, place):
            if is_loopback(place[0]):
                sock.close()
                return None
            _bind(sock, place, shared=True)
            # It was only to overlook connections that have ended.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            return sock
    except OSError as error:
        why = "it is taken" if _is_taken(error) else str(error)
        raise StartError(f"cannot keep the port {host}:{port} for restarts: {why}") from None


@asynccontextmanager
async def _unbound(host: str, port: int) -> AsyncIterator[tuple[socket.socket, tuple[str, int]]]:
    """A socket, and what to bind it to; closed if the block fails."""
    if not 0 <= port < 1 << 16:  # getaddrinfo would take it for another
        raise OverflowError("a port is from 0 to 65535")
    family, place = await resolve(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        yield sock, place
    except BaseException:
        sock.close()
        raise


def _is_taken(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def _bind_loopback(sock: socket.socket, host: str, place: tuple[str, int], restarted: bool) -> Port:
    try:
        # Without SO_REUSEADDR: with it two processes could have a port that neither listens at.
        sock.bind(place)
    except OSError as error:
        if not restarted or not _is_taken(error):
            raise
        sock.close()
        return Port(host, place[1], None, None)
    return Port(host, sock.getsockname()[1], sock, None)


def _bind(sock: socket.socket, place: tuple[str, int], shared: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(place)
