"""The page's server in a thread of the test, which can end it like a process that is killed.

``python -m tests.browser.server`` serves a society that steps, for looking at it by hand.
"""

from __future__ import annotations

import argparse
import socket
import threading
import time
from collections.abc import Sequence

import anyio
import anyio.to_thread
import uvicorn

from creamas_sc.page.access import Access
from creamas_sc.page.app import make_app
from creamas_sc.page.source import Source, Sources
from tests.browser.made_up import Society


class MadeUpSources(Sources):
    """Societies by their names."""

    daemon = "default"

    def __init__(self, societies: Sequence[Society]) -> None:
        self._societies = {society.name: society for society in societies}

    async def all(self) -> list[tuple[str, str]]:
        return [(each.name, each.kind) for each in self._societies.values()]

    def get(self, name: str) -> Source:
        return self._societies[name]


class Server:
    """Serves societies to the page, at the same port each time that it is started.

    Attributes:
        access: Who may ask for what; another one is what another process would have.
    """

    def __init__(self, *societies: Society, port: int = 0) -> None:
        self.port = port
        self.access = Access()
        self._sources = MadeUpSources(societies)

    @property
    def url(self) -> str:
        """Leads in, once."""
        return f"http://127.0.0.1:{self.port}/?token={self.access.url_token}"

    def start(self) -> None:
        """Listen, and answer."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(target=anyio.run, args=(self._serve, listener, ready))
        self._thread.start()
        ready.wait()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        stopping = anyio.Event()
        app = make_app(self._sources, self.access, stopping)
        config = uvicorn.Config(
            app, lifespan="off", interface="asgi3", ws="none", log_config=None,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        self._end = threading.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            ready.set()
            await anyio.to_thread.run_sync(self._end.wait)
            stopping.set()
            server.should_exit = True

    def stop(self) -> None:
        """Close the port and all connections."""
        self._end.set()
        self._thread.join()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("port", 0), ("agents", 60), ("artifacts", 400), ("steps", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    society = Society(options.agents, options.artifacts, options.steps)
    with Server(society, port=options.port) as server:
        print(server.url, flush=True)
        while True:
            time.sleep(0.3)
            if society.now["state"] == "stepping":
                society.step()


if __name__ == "__main__":
    main()
