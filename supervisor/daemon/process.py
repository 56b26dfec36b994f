"""A daemon: a supervisor that outlives its clients, and the process that owns it.

That process, the owner, starts the supervisor's tree as a script does, and has it listen::

    start()  --spawns-->  main()          the owner: holds the lock, gets the signals
             <--pipe---     |             "ready", or the text of an error
                            `-- PrivateSupervisor: keeper, zygote, supervisor (DaemonService)

The owner ends when its tree has ended, however that came about, and the tree ends when the owner is
gone. A first signal closes all simulations within `CLOSE_SECONDS`, and then the supervisor; a
second one kills the tree. Of one name there is one daemon at a time: see `supervisor.daemon.lock`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import trio

from creamas_sc.errors import ConnectionLost, CreamasError, StartError
from creamas_sc.foreign import shorten
from creamas_sc.runtime.log_files import open_log_file
from creamas_sc.runtime.log_setup import close_log, open_log
from creamas_sc.runtime.nurseries import open_unwrapping_nursery
from creamas_sc.runtime.paths import daemon_socket
from creamas_sc.runtime.timeouts import LOOK_SECONDS
from creamas_sc.supervisor_client.connection import PrivateSupervisor
from creamas_sc.supervisor_client.launcher import PRELOADED_FOR_HOSTS, supervisor_command
from creamas_sc.supervisor_client.messages import DaemonSettings, NodeSettings
from creamas_sc.supervisor_client.node_key import make_key
from supervisor import timeouts
from supervisor.daemon.lock import clear_dead, clear_socket, is_held, locked
from supervisor.daemon.notify import Notifier
from supervisor.daemon.records import own_log, recorded, running_here
from supervisor.tree import linux

log = logging.getLogger(__name__)

# What a daemon's zygote imports beside the rest: actors that log are ready sooner.
PRELOADED = ("structlog", "supervisor.daemon.service", *PRELOADED_FOR_HOSTS)
# The report of a start that went well. It is one write and one read: a pipe holds as much.
READY = "ready"
REPORT_BYTES = 1 << 16
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Settings:
    """What a daemon is started with.

    Attributes:
        name: Of the daemon; see `creamas_sc.runtime.paths.daemon_name`.
        log_folder: Gets NAME.log, and NAME/SIMULATION.log for each simulation; where another daemon
            of that name runs elsewhere, NAME@PLACE.log and NAME@PLACE/SIMULATION.log.
        console: Whether its log is shown on standard error too.
        listen: Host and port at which it listens for nodes; None if it does not.
        node_key: The file with the key of nodes, which is made if there is none; by default beside
            the log.
    """

    name: str
    log_folder: Path
    console: bool = False
    listen: tuple[str, int] | None = None
    node_key: Path | None = None

    @property
    def folder(self) -> Path:
        """The log folder, for processes with another working folder."""
        return self.log_folder.absolute()

    def nodes(self, log_file: str) -> NodeSettings | None:
        """Where it listens for nodes, and with which key.

        Raises:
            BadValue: The key cannot be read, or made.
        """
        if self.listen is None:
            return None
        file = (self.node_key or Path(log_file).with_suffix(".nodes.key")).absolute()
        host, port = self.listen
        lease = timeouts.LEASE_SECONDS
        key = make_key(file)
        return {"host": host, "port": port, "key": key, "key_file": str(file), "lease": lease}


class Places(NamedTuple):
    """Where a daemon listens.

    Attributes:
        socket: For clients.
        nodes: Host and port for nodes; None if it does not listen for any.
    """

    socket: Path
    nodes: tuple[str, int] | None = None


def run(settings: Settings, announce: Callable[[Places], None]) -> int:
    """Be a daemon, in the foreground, until it is asked to end.

    A first signal (SIGTERM, SIGINT, SIGHUP) closes all simulations; a second one kills them.

    Args:
        announce: Called with where it listens, when clients can connect.

    Returns:
        The exit code: 0, 130 after SIGINT, 128 + its number after a second signal, 1 where the
        supervisor was lost.

    Raises:
        StartError: There is a daemon of that name, or it cannot start here.
        CreamasError: The runtime folder or the name cannot be used.
    """
    notifier = Notifier.take()
    path = daemon_socket(settings.name)
    _check_not_running(settings, path)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would cost the tree's exit code
    with locked(path) as lock:
        clear_socket(path)
        clear_dead(path.parent)
        with recorded(settings.folder, settings.name):
            log_file = own_log(settings.folder, settings.name)
            try:
                owner = _Owner(settings, log_file, path, lock, notifier)
                return trio.run(owner.run, announce)
            finally:
                close_log()


def _check_not_running(settings: Settings, path: Path) -> None:
    """Check that there is no daemon whose lock was removed while it runs.

    Raises:
        StartError: There is one.
    """
    other = running_here(settings.folder, settings.name)
    if other is not None and not is_held(path):
        raise StartError(
            f"daemon {settings.name!r} runs already (pid {other.pid}), but its files in "
            f"{path.parent} were removed: it puts them back within {LOOK_SECONDS:g} s"
        )


def _no_log(log_file: Path, error: OSError) -> StartError:
    return StartError(f"cannot log into {log_file}: {error.strerror}")


class _Owner:
    """The process that owns a daemon's tree."""

    def __init__(
        self, settings: Settings, log_file: Path, path: Path, lock: int, notifier: Notifier
    ) -> None:
        self._settings = settings
        self._notifier = notifier
        self._log_file = str(log_file)
        self._path = path
        self._supervisor = PrivateSupervisor(lambda _: None, [lock], PRELOADED)
        self._opening = trio.CancelScope()
        self._signals: list[int] = []

    async def run(self, announce: Callable[[Places], None]) -> int:
        """Start the tree, have it listen, and wait for its end; returns the exit code."""
        try:
            # The receiver outlives the task that waits for it: at its end trio delivers what is
            # unread.
            with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
                async with open_unwrapping_nursery() as nursery:
                    await nursery.start(self._supervisor.run)
                    nursery.start_soon(self._handle_signals, signals)
                    try:
                        self._open_log()  # its imports take as long as the zygote's
                        with self._opening:
                            nodes = await self._listen()
                            announce(Places(self._path, nodes))
                            self._notifier.ready(f"listening at {self._path}")
                            nursery.start_soon(self._give_signs_of_life)
                        await self._supervisor.gone.wait()
                    finally:
                        self._notifier.stopping()
                        await self._supervisor.aclose()
                    nursery.cancel_scope.cancel()
        except KeyboardInterrupt:  # a Ctrl-C that was unread
            self._signals.append(signal.SIGINT)
        return self._exit_code()

    def _open_log(self) -> None:
        console = self._settings.console
        try:
            open_log(self._log_file, console=console, process="daemon", pid=os.getpid())
        except OSError as error:
            raise _no_log(Path(self._log_file), error) from error

    async def _listen(self) -> tuple[str, int] | None:
        settings: DaemonSettings = {
            "name": self._settings.name,
            "socket": str(self._path),
            "log": self._log_file,
            "console": self._settings.console,
            "pid": os.getpid(),
            "nodes": self._settings.nodes(self._log_file),
        }
        try:
            with trio.fail_after(timeouts.LISTEN_SECONDS):
                nodes = await self._supervisor.call("listen", settings)
        except ConnectionLost as error:
            raise StartError(f"the supervisor ended early: see {settings['log']}") from error
        except trio.TooSlowError as error:
            raise StartError(f"the supervisor does not answer: see {settings['log']}") from error
        return None if nodes is None else (nodes[0], nodes[1])

    async def _give_signs_of_life(self) -> None:
        """Have systemd know that daemon and supervisor are alive, until the supervisor is gone."""
        with suppress(CreamasError):
            await self._notifier.watch(lambda: self._supervisor.call("ping"))

    async def _handle_signals(self, signals: Any) -> None:
        async with trio.open_nursery() as nursery:
            async for number in signals:
                self._signals.append(number)
                log.info("daemon %s got %s", self._settings.name, signal.Signals(number).name)
                if len(self._signals) == 1:
                    nursery.start_soon(self._close)
                else:
                    self._supervisor.kill()

    async def _close(self) -> None:
        """Close all simulations, then the supervisor."""
        self._notifier.stopping()
        self._opening.cancel()
        try:
            with trio.move_on_after(timeouts.CLOSE_SECONDS):
                await self._supervisor.call("close_all")
        except CreamasError as error:
            log.debug("nothing to close: %s", error)
        await self._supervisor.aclose()

    def _exit_code(self) -> int:
        if len(self._signals) > 1:
            return 128 + self._signals[1]
        if self._signals:
            return 128 + signal.SIGINT if self._signals[0] == signal.SIGINT else 0
        if self._supervisor.exit_code == 0:
            return 0
        log.error("the supervisor of daemon %s was lost, with all simulations", self._settings.name)
        return 1


# ---- in the background


def start(settings: Settings, timeout: float = timeouts.START_SECONDS) -> Places:
    """Start a daemon in the background.

    Args:
        timeout: Seconds until clients must be able to connect.

    Returns:
        Where it listens.

    Raises:
        StartError: It did not come up, and nothing of it is left; the message says why.
        CreamasError: As of `run`.
    """
    path = daemon_socket(settings.name)
    log_file = own_log(settings.folder, settings.name)
    read, write = os.pipe()
    with open(read, "rb", buffering=0):
        with open(write, "wb"):
            process = _spawn(settings, log_file, write)
        try:
            if not select.select([read], [], [], timeout)[0]:
                text = f"daemon {settings.name!r} was not ready within {timeout:g} s"
                raise StartError(f"{text}; its log is {log_file}")
            report = os.read(read, REPORT_BYTES).decode()  # empty if it died
            ready, *nodes = report.split("\n")
            if ready != READY:
                process.wait(timeouts.KILL_SECONDS)
                raise StartError(report or _died_early(settings.name, log_file))
        except BaseException:
            process.kill()  # its tree ends with it
            process.wait()
            raise
    process.returncode = 0  # it runs on, and is not waited for
    return Places(path, (nodes[0], int(nodes[1])) if nodes else None)


def _spawn(settings: Settings, file: Path, report: int) -> subprocess.Popen[bytes]:
    """Start `main` in a new session, with its output in the log."""
    try:
        log_fd = open_log_file(str(file))
    except OSError as error:
        raise _no_log(file, error) from error
    listen = () if settings.listen is None else map(str, settings.listen)
    key = () if settings.node_key is None else (str(settings.node_key.absolute()),)
    arguments = [settings.name, str(settings.folder), str(report), *listen, *key]
    with open(log_fd, "ab", buffering=0):
        return subprocess.Popen(
            [*supervisor_command(), "daemon", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=[report],
            start_new_session=True,
            cwd="/",
        )


def _died_early(name: str, file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines()[-1:]
    return "; ".join([f"daemon {name!r} ended before it was ready: see {file}", *lines])


def main(argv: list[str]) -> int:
    """Be the daemon that `start` has started.

    Args:
        argv: Name, log folder, and a descriptor to report on; host and port at which it listens for
            nodes, if it does, and the file with their key, if it is not the usual one.
    """
    name, log_folder, descriptor, nodes = argv[0], Path(argv[1]), int(argv[2]), argv[3:]
    listen = (nodes[0], int(nodes[1])) if nodes else None
    key = Path(nodes[2]) if nodes[2:] else None
    linux.name_process("creamas-daemon")

    def report(text: str) -> None:
        with open(descriptor, "wb", buffering=0) as pipe:
            pipe.write(text.encode())

    try:
        settings = Settings(name, log_folder, listen=listen, node_key=key)
        return run(
            settings, lambda places: report("\n".join([READY, *map(str, places.nodes or ())]))
        )
    except CreamasError as error:
        report(shorten(str(error)))
        return 1
