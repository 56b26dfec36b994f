"""What starts a node beside each worker of a dask cluster.

Imported by the workers, and by a script that has `creamas_sc.nodes.dask_nodes.DaskNodes`; nobody
else needs dask.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import tempfile
from contextlib import suppress
from typing import IO, Any, Final

from distributed import Worker, WorkerPlugin

from creamas_sc.errors import StartError
from creamas_sc.foreign import printable, shorten
from creamas_sc.nodes import NodeAccess
from creamas_sc.runtime.installation import how_to_install, missing_packages
from creamas_sc.supervisor_client.launcher import python_command
from creamas_sc.supervisor_client.messages import describe_exit

END_SECONDS: Final = 5.0
"""How long a node may take to end in order; its own steps on the way to a kill take less."""

ERRORS_BYTES: Final = 1 << 20
"""What a node and its slaves have printed as errors is thrown away beyond that."""
BOUND_SECONDS: Final = 1.0
"""Between two looks at how much that is."""

_NODE: Final = ("-m", "supervisor.cli", "node")

log = logging.getLogger(__name__)


class NodePlugin(WorkerPlugin):
    """Starts a node beside a worker, and ends it with it.

    Its standard input stays open as long as the worker lives: however that ends, so does the node.

    Args:
        name: Of the plugin, and of the topic of what it tells the cluster's clients: that a node
            has ended with an error.
        access: Where the node joins.
    """

    def __init__(self, name: str, access: NodeAccess) -> None:
        self.name = name
        self._access = access

    def setup(self, worker: Worker) -> None:
        """Start the node.

        Raises:
            StartError: What it needs is not installed here.
        """
        missing = missing_packages()
        if missing:
            raise StartError(
                f"no node can run at {worker.address}, as {', '.join(missing)} is not installed "
                f"there: {how_to_install()}"
            )
        host, port, key = self._access
        join = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._worker = worker
        # Neither is a pipe, which could be full, nor the worker's own, which nobody may read.
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        fcntl.fcntl(self._errors, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied
        options = ["--join", join, "--key-fd", "0", "--engine", str(worker.name)]
        self._process = subprocess.Popen(
            [*python_command(), *_NODE, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            process_group=0,  # a Ctrl-C of the terminal is for the script, which decides
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, and is told of below
            self._process.stdin.write(key.hex().encode() + b"\n")
            self._process.stdin.flush()
        self._watch: int | None = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._watch, self._note_end)
        self._bound_errors()

    def _bound_errors(self) -> None:
        """Empty the file of errors now and then: slaves print there too."""
        if self._watch is not None:
            if os.fstat(self._errors.fileno()).st_size > ERRORS_BYTES:
                self._errors.truncate(0)
            asyncio.get_running_loop().call_later(BOUND_SECONDS, self._bound_errors)

    def _note_end(self) -> None:
        """The node has ended; tell why, unless it did so in order."""
        self._unwatch()
        if code := self._process.wait():
            self._errors.seek(0)
            *_, last = ["", *self._errors.read().decode(errors="replace").splitlines()]
            number = -code if code < 0 else None
            how = f"ended: {last}" if last and number is None else describe_exit(code, number)
            text = f"the node of {self._worker.address} {shorten(printable(how))}"
            log.warning("%s", text)
            self._worker.log_event(self.name, text)

    def _unwatch(self) -> None:
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            os.close(self._watch)
            self._watch = None

    async def teardown(self, worker: Worker) -> None:
        """End the node, and wait for that."""
        process: Any = getattr(self, "_process", None)
        if process is None:  # it was not started
            return
        self._unwatch()
        process.stdin.close()
        try:
            await asyncio.to_thread(process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.close()
