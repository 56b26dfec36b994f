"""Accept connections, also while the process is out of descriptors."""

from __future__ import annotations

import errno
import logging

import trio

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.1  # out of descriptors: the kernel keeps peers waiting
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


async def accept(listener: trio.SocketListener) -> trio.SocketStream | None:
    """Return the next connection, or None once ``listener`` is closed.

    As `trio.serve_listeners` does, but that logs a traceback ten times a second while there are no
    descriptors, and strangers can bring that about.
    """
    logged = False
    while True:
        try:
            return await listener.accept()
        except trio.ClosedResourceError:
            return None
        except OSError as error:
            if error.errno not in _SCARCE:
                raise
            if not logged:
                log.warning("cannot accept connections now: %s", error.strerror)
                logged = True
            await trio.sleep(PAUSE_SECONDS)
