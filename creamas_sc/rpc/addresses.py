"""Addresses of environments and agents, and the ports that are in them.

An environment's address is ``tcp://host:port/``, an agent's is that and its number. The port is its
own on the machine: it is bound, so nobody else can have it. Whether anything listens at it depends
on the host:

    loopback (localhost, 127.0.0.1, ::1)   nothing: peers use the environment's unix socket
    any other host, or all (0.0.0.0)       TCP, for peers on other machines, beside the unix socket
"""

from __future__ import annotations

import errno
import functools
import socket
from typing import NamedTuple

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


class Port(NamedTuple):
    """A port of this machine.

    Attributes:
        number: From 1 to 65535.
        sock: Keeps the port from everybody else; None if somebody else has it.
        listener: Accepts peers of other machines; None if the host is a loopback address.
    """

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
        restarted: A process that ended had this port. Somebody else may have got it meanwhile,
            another user on purpose; that matters only where peers connect over it.

    Raises:
        StartError: The address cannot be had; the message says which and why.
    """
    try:
        if not 0 <= port < 1 << 16:  # getaddrinfo would take it for another
            raise OverflowError("a port is from 0 to 65535")
        found = await anyio.getaddrinfo(numeric(host), port, type=socket.SOCK_STREAM)
        # One address of those that a name has, so that port 0 is one port.
        family, _, _, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return _bind(socket.socket(family, socket.SOCK_STREAM), place)
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        if taken and restarted and is_loopback(host):
            return Port(port, None, None)
        why = "the port is taken" if taken else str(error)
        raise StartError(f"cannot listen on {host}:{port}: {why}") from None


def _bind(sock: socket.socket, place: tuple[str, int]) -> Port:
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_loopback(place[0]):
            # Without SO_REUSEADDR: with it two processes could have a port that neither listens at.
            sock.bind(place)
            return Port(sock.getsockname()[1], sock, None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(place)
        sock.listen(_BACKLOG)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
        return Port(sock.getsockname()[1], sock, listener)
    except BaseException:
        sock.close()
        raise
