"""The page's server: a process of its own, and to the daemon a client like any other."""

from __future__ import annotations

import getpass
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import uvicorn
from anyio.abc import TaskStatus

from creamas_sc.errors import CreamasError, unwrapped
from creamas_sc.page.access import LOOPBACK, Access, kept_secret, new_secret
from creamas_sc.page.app import make_app
from creamas_sc.page.source import Sources

log = logging.getLogger(__name__)

# How long requests may take to finish once the server ends.
GRACE_SECONDS: Final = 2
# Of browsers, and of strangers that are refused.
MOST_CONNECTIONS: Final = 256
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})


def serve(
    sources: Sources,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    read_only: bool = False,
    announce: Callable[[str, str], None] = lambda url, tunnel: None,
) -> int:
    """Serve a page until SIGINT or SIGTERM.

    Args:
        host: The address to listen at.
        port: 0 for any free one. With another, a page that is started again there is known by the
            browser that had entered before.
        read_only: Neither pause nor resume simulations.
        announce: Gets the URL, and the command that leads to it from another machine, once the
            server listens.

    Returns:
        The number of the signal.

    Raises:
        CreamasError: It cannot listen there.
    """
    listener = _listen(host, port)
    try:
        access = Access(
            _names(host),
            port=listener.getsockname()[1],
            read_only=read_only,
            secret=_secret(port) if port else None,
        )
        return anyio.run(_serve, sources, access, listener, host, announce)
    except BaseExceptionGroup as group:
        raise unwrapped(group) from None
    finally:
        listener.close()


async def _serve(
    sources: Sources,
    access: Access,
    listener: socket.socket,
    host: str,
    announce: Callable[[str, str], None],
) -> int:
    port = listener.getsockname()[1]
    stopping = anyio.Event()
    server = _Server(
        uvicorn.Config(
            make_app(sources, access, stopping),
            lifespan="off",
            interface="asgi3",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
        )
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            await tasks.start(_run, server, listener)
            announce(_url(host, port, access), _tunnel(host, port))
            number = await anext(signals)
            stopping.set()
            server.should_exit = True
    return int(number)


async def _run(server: _Server, listener: socket.socket, *, task_status: TaskStatus[None]) -> None:
    server.ready = task_status.started
    await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Leaves signals to `serve`, and says when it listens."""

    ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        raise CreamasError(
            f"the page cannot listen at {host}, port {port}: {why}; choose another with --port "
            "(0 for any free one) or --host"
        ) from error
    return listener


def _secret(port: int) -> bytes:
    """The secret of pages at that port; a new one if it cannot be kept."""
    try:
        return kept_secret(port)
    except (CreamasError, OSError) as error:
        log.warning("browsers will not know the next page at port %d: %s", port, error)
        return new_secret()


def _names(host: str) -> set[str]:
    """By which names and addresses browsers may ask for the page, beside those of loopback."""
    if host not in _WILDCARDS:
        return {host}
    here = socket.gethostname()
    found = {here, socket.getfqdn()}
    try:
        found |= {str(each[4][0]) for each in socket.getaddrinfo(here, None)}
    except OSError:  # the name is in no table
        pass
    return found


def _url(host: str, port: int, access: Access) -> str:
    shown = socket.gethostname() if host in _WILDCARDS else host
    return f"http://{_bracketed(shown)}:{port}/?token={access.url_token}"


def _tunnel(host: str, port: int) -> str:
    """The command that makes the URL work on another machine; "" if it works there anyway."""
    if host not in LOOPBACK:
        return ""
    there = f"{_bracketed(host)}:{port}"
    return f"ssh -N -L {port}:{there} {getpass.getuser()}@{socket.gethostname()}"


def _bracketed(host: str) -> str:
    """A host as URLs have it."""
    return f"[{host}]" if ":" in host else host
