"""The zygote: imports everything once, with one thread, and then forks the supervisor and actors.

What is forked when::

    script
      `-- keeper             exec: starts Python, and forks before any heavy import
            `-- zygote       fork: imports the supervisor's modules ...
                  |-- supervisor   fork: from here on it runs trio and asks for the others
                  |                ... meanwhile the zygote imports `preload`
                  |-- actor        fork, for each request over a SEQPACKET socket
                  `-- actor

The zygote never runs trio, and imports numpy and the like only if the script asks for it
(`creamas_sc.prestart`), and never a user's module, so a fork of it is a clean start. It is the
parent of supervisor and actors: it reaps them, reports to the supervisor how each actor ended, and
kills what a dead actor forked away. It is a subreaper, so such processes come to it when their
actor dies; so is each actor, so that they stay findable while it lives.

Who dies with whom: the kernel sends supervisor and actors SIGKILL when the zygote ends, and the
zygote SIGTERM when the keeper ends (``PR_SET_PDEATHSIG``; right only because each parent has forked
from its only thread). A SIGKILL of

    an actor      its orphans are killed here, the supervisor gets a report, siblings go on
    supervisor    SIGCHLD: the zygote sweeps (kills and reaps all there is), wakes the keeper, exits
    zygote        supervisor and actors die with it; the keeper adopts what is left and sweeps
    keeper        SIGTERM: the zygote sweeps and exits
    script        the supervisor sees its connection end and stops all actors; the zygote sees the
                  script's pidfd, tells the supervisor (a fork of the script may keep the connection
                  open), and sweeps after `ZYGOTE_WAIT_SECONDS`; after that the keeper kills it
    keeper and zygote at one blow    see `supervisor.tree.orphans`

A process that was stopped (SIGSTOP) sees nothing. So the keeper watches over a stopped zygote, and
the supervisor wakes a stopped zygote when the keeper is gone; a stopped actor or supervisor is only
ever killed, which a stop does not prevent.
"""

from __future__ import annotations

import ctypes.util
import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from supervisor.timeouts import SWEEP_WAIT_SECONDS, ZYGOTE_WAIT_SECONDS
from supervisor.tree import adoption, child_setup, linux

_MESSAGE_BYTES = 1 << 14
# Of one request to fork: the actor's connection, and what it inherits.
_MAX_DESCRIPTORS = 4


def run(
    control_fd: int,
    script_pidfd: int,
    keeper_pid: int,
    keeper_pidfd: int,
    report_fd: int,
    preload: list[str],
) -> NoReturn:
    """Import, fork the supervisor, serve its requests to fork, and end all that is left."""
    linux.become_subreaper()
    linux.name_process("creamas-zygote")
    gc.disable()  # until the last freeze: a collection before would leave holes that are copied
    # Save trio's import a subprocess, ldconfig: it looks for libpthread, to name its threads.
    find_library, ctypes.util.find_library = ctypes.util.find_library, lambda name: None
    from supervisor import root
    from supervisor.actors import tractor_adapter

    ctypes.util.find_library = find_library
    _import_if_there("anyio._backends._trio")  # as anyio would, in each process
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote_pid = os.getpid()

    def supervise() -> int:
        child_setup.set_up(
            zygote_pid, [control_fd, theirs.fileno(), keeper_pidfd], "creamas-superv"
        )
        return root.run(control_fd, theirs, zygote_pid, keeper_pidfd)

    gc.freeze()
    supervisor_pid = os.fork()
    if supervisor_pid == 0:
        child_setup.run_and_exit(supervise)
    theirs.close()
    for fd in (control_fd, keeper_pidfd):
        os.close(fd)
    os.write(report_fd, b"%d" % supervisor_pid)
    os.close(report_fd)
    for name in preload:  # while the supervisor comes up
        _import_if_there(name)
    gc.freeze()
    zygote = _Zygote(ours, script_pidfd, supervisor_pid, tractor_adapter.run_actor)
    zygote.serve()
    linux.sweep()
    # A stopped keeper could not adopt and kill what this sweep may have missed.
    if os.getppid() == keeper_pid:
        os.kill(keeper_pid, signal.SIGCONT)
    os._exit(0 if zygote.supervisor_status == 0 else 1)


def _import_if_there(name: str) -> None:
    """Import a module; if it does not import, each actor that needs it will say so."""
    threads = _number_of_threads()
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            _warn(f"{name} does not import: {error}")
    except Exception as error:
        _warn(f"{name} does not import: {type(error).__name__}: {error}")
    if _number_of_threads() > threads:
        _warn(f"{name} starts threads, which slaves will lack: leave it out of prestart()")


def _number_of_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _warn(text: str) -> None:
    print(f"creamas_sc: {text}", file=sys.stderr, flush=True)


class _Zygote:
    """The loop after start-up. `serve` returns when the tree has to end.

    Attributes:
        supervisor_status: The supervisor's wait status; None if it did not end first.
    """

    def __init__(
        self,
        requests: socket.socket,
        script_pidfd: int,
        supervisor_pid: int,
        run_actor: Callable[[str, str, int, Sequence[int]], int],
    ) -> None:
        requests.setblocking(False)
        self._requests = requests
        # SIGCHLD and SIGTERM (the keeper's death among its causes) become bytes to poll for.
        self._wakeup_fd, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in child_setup.ZYGOTE_SIGNALS:
            signal.signal(number, lambda *_: None)
        self._script_pidfd = script_pidfd
        self._supervisor_pid = supervisor_pid
        self._run_actor = run_actor
        self._actors: set[int] = set()
        self._outbox: deque[tuple[dict[str, Any], int | None]] = deque()
        self._over = False
        self.supervisor_status: int | None = None

    def serve(self) -> None:
        """Fork, reap and report until the supervisor is gone or a signal says to end."""
        poll = select.poll()
        poll.register(self._wakeup_fd, select.POLLIN)
        poll.register(self._script_pidfd, select.POLLIN)
        deadline: float | None = None
        self._reap()  # what ended before the handlers were set
        while not self._over:
            if self._requests.fileno() >= 0:
                events = select.POLLIN | (select.POLLOUT if self._outbox else 0)
                poll.register(self._requests, events)
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = dict(poll.poll(timeout))
            if not ready and deadline is not None:
                return
            if self._script_pidfd in ready:
                # A fork of the script may keep the control connection open, so the supervisor
                # gets a message; it has the time that stopping takes.
                poll.unregister(self._script_pidfd)
                self._outbox.append(({"gone": "script"}, None))
                deadline = time.monotonic() + ZYGOTE_WAIT_SECONDS
            if self._wakeup_fd in ready:
                numbers = os.read(self._wakeup_fd, 512)
                if signal.SIGTERM in numbers:
                    self._over = True
                elif signal.SIGCHLD in numbers:
                    self._reap()
            if ready.get(self._requests.fileno(), 0) & ~select.POLLOUT and not self._take_request():
                # The supervisor is about to end: SIGCHLD will come.
                poll.unregister(self._requests)
                self._requests.close()
                self._outbox.clear()
                deadline = time.monotonic() + SWEEP_WAIT_SECONDS
            self._send()

    def _reap(self) -> None:
        """Collect the dead, and kill the orphans that they leave to this process."""
        ended = linux.reap()
        for pid, status in ended:
            if pid == self._supervisor_pid:
                self._over = True
                self.supervisor_status = status
            elif pid in self._actors:
                self._actors.discard(pid)
                self._outbox.append(({"ended": pid, "status": status}, None))
        if ended and not self._over:
            for pid in set(linux.children()) - self._actors - {self._supervisor_pid}:
                linux.kill_child(pid)

    def _take_request(self) -> bool:
        """Serve the next request, if there is one; False if no more will come."""
        try:
            data, fds, _, _ = socket.recv_fds(
                self._requests, _MESSAGE_BYTES, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        request = json.loads(data)
        try:
            if len(fds) != request["fds"]:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = self._fork(request, fds)
        except OSError as error:
            self._outbox.append(({"serial": request["serial"], "error": str(error)}, None))
        else:
            self._actors.add(pid)
            answer = {"serial": request["serial"], "pid": pid}
            self._outbox.append((answer, os.pidfd_open(pid)))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fork(self, request: dict[str, Any], fds: Sequence[int]) -> int:
        zygote_pid = os.getpid()

        def act() -> int:
            child_setup.set_up(zygote_pid, fds, request["name"])
            linux.become_subreaper()  # what it forks away stays findable
            adoption.note_children()
            return self._run_actor(request["name"], request["uid"], fds[0], fds[1:])

        signal.pthread_sigmask(signal.SIG_BLOCK, child_setup.ZYGOTE_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                child_setup.run_and_exit(act)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, child_setup.ZYGOTE_SIGNALS)
        return pid

    def _send(self) -> None:
        while self._outbox:
            message, fd = self._outbox[0]
            try:
                socket.send_fds(
                    self._requests, [json.dumps(message).encode()], [] if fd is None else [fd]
                )
            except BlockingIOError:
                return
            except OSError:  # the supervisor is gone: SIGCHLD will come
                pass
            self._outbox.popleft()
            if fd is not None:
                os.close(fd)
