"""The page's server in a thread of the test, which can end it like a process that is killed.

``python -m tests.browser.server`` serves a society that steps, for looking at it by hand.
"""

from __future__ import annotations

import argparse
import socket
import threading
import time

import anyio
import uvicorn

from creamas_sc.page.access import Access
from creamas_sc.page.app import make_app
from tests.browser.made_up import Society
from tests.support.pages import FakeSources


class Server:
    """Serves a society to the page, at the same port each time that it is started.

    Attributes:
        access: Who may ask for what; another one is what another process would have.
    """

    def __init__(self, society: Society, port: int = 0) -> None:
        self.port = port
        self.access = Access()
        self._society = society

    @property
    def url(self) -> str:
        """Leads in, once."""
        return f"http://127.0.0.1:{self.port}/?token={self.access.url_token}"

    def start(self) -> None:
        """Listen, and answer."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        app = make_app(FakeSources(self._society), self.access, anyio.Event())
        config = uvicorn.Config(app, lifespan="off", interface="asgi3", ws="none", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections at once."""
        self._server.should_exit = self._server.force_exit = True
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
    with Server(society, options.port) as server:
        print(server.url, flush=True)
        while True:
            time.sleep(0.3)
            if society.now["state"] == "stepping":
                society.step()


if __name__ == "__main__":
    main()
