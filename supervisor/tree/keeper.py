"""The keeper: the init process of a tree. It starts the zygote and then only waits.

It is the last of its tree to die. It is a subreaper: processes of the tree whose parents are gone
become its children, and it ends them (`linux.sweep`) after the zygote has ended. It waits for::

    zygote ends                                  sweep, exit
    supervisor ends                              give the zygote `SWEEP_WAIT_SECONDS`, then kill it
    script ends                                  give the zygote `KEEPER_WAIT_SECONDS`, then kill it

The last two are for a zygote that is stopped; see `supervisor.tree.zygote` for the usual way. The
keeper stays small and runs on the standard library, so that little can go wrong in it.

Recipe for a script that wants its own tree::

    ours, theirs = socket.socketpair()
    package = <folder that holds creamas_sc>.parent / "supervisor"
    keeper = subprocess.Popen(
        [sys.executable, "-P", str(package / "__main__.py"), str(theirs.fileno()),
         str(os.getpid()), *preload],
        pass_fds=[theirs.fileno()],
        env={**os.environ, "CREAMAS_TREE": record},
    )
    theirs.close()

- ``ours`` then speaks the frame protocol with the supervisor (`supervisor.root`); closing it ends
  the tree: every actor is asked to stop, and the keeper exits when nothing is left.
- ``preload`` names modules that the zygote imports once for all actors; a missing one is skipped.
  None of them may start a thread, or be a user's.
- ``record`` is a path, ending in ``.tree``, in a folder of the user that is closed to others. The
  keeper creates that file (see `supervisor.tree.orphans`), ends the orphans of trees with a record
  there, and removes it at its end. If it is empty, orphans of this tree may stay.
- Standard output and error are inherited, standard input is not. The tree has a session of its
  own: a Ctrl-C at the terminal reaches the script alone.
- At the end: close ``ours``, ``keeper.send_signal(SIGCONT)``, and wait for it, within a bound.

Exit status: 0 if the supervisor ended as it should, else 1.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

from supervisor.timeouts import KEEPER_WAIT_SECONDS, SWEEP_WAIT_SECONDS
from supervisor.tree import linux, orphans


def main(argv: list[str]) -> int:
    """Run the keeper; in the forked zygote this does not return.

    Args:
        argv: The control socket's descriptor, the script's pid, and the modules to preload.
    """
    control_fd, script_pid = int(argv[0]), int(argv[1])
    detach()
    try:
        script_pidfd = os.pidfd_open(script_pid)
    except ProcessLookupError:
        return 1
    keeper_pid = os.getpid()
    keeper_pidfd = os.pidfd_open(keeper_pid)
    record = _record(os.environ.get(orphans.VARIABLE, ""), script_pid)
    report_read, report_write = os.pipe()
    zygote_pid = os.fork()  # before any heavy import: the keeper stays small
    if zygote_pid == 0:
        linux.die_with_parent(keeper_pid, signal.SIGTERM)
        os.close(report_read)
        from supervisor.tree.zygote import run

        run(control_fd, script_pidfd, keeper_pid, keeper_pidfd, report_write, argv[2:])
    os.close(report_write)
    os.close(control_fd)
    os.close(keeper_pidfd)
    zygote_pidfd = os.pidfd_open(zygote_pid)
    if record:
        try:
            orphans.sweep(os.path.dirname(record))  # while the zygote imports
        except OSError as error:
            print(f"what earlier slaves forked away may still be there: {error}", file=sys.stderr)
    watch(zygote_pidfd, script_pidfd, report_read)
    status = os.waitpid(zygote_pid, os.WNOHANG)[1]
    if linux.sweep() and record:
        with suppress(OSError):  # the folder was cleared; the next start looks at what is there
            os.unlink(record)
    return 0 if status == 0 else 1


def _record(path: str, owner_pid: int) -> str:
    """Make this tree's record, which this process and the zygote hold; empty if there is none."""
    try:
        if path:
            orphans.write(path, owner_pid)
    except OSError as error:
        print(f"what slaves fork away may be left behind: no record: {error}", file=sys.stderr)
        return ""
    return path


def detach() -> None:
    """Start a session, adopt orphans, release the terminal, and learn of children's ends."""
    try:
        os.setsid()
    except PermissionError:  # this process leads a group already
        pass
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)
    # What the script ignores or blocks is inherited.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    linux.become_subreaper()
    linux.name_process("creamas-keeper")


def watch(zygote_pidfd: int, script_pidfd: int, report: int) -> None:
    """Wait for the zygote's end; kill it if the supervisor or the script is gone for too long."""
    poll = select.poll()
    for fd in (zygote_pidfd, script_pidfd, report):
        poll.register(fd, select.POLLIN)
    deadline: float | None = None
    while True:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(timeout)}
        if zygote_pidfd in ready:
            return
        if not ready:
            linux.kill_pidfd(zygote_pidfd, signal.SIGKILL)
            select.select([zygote_pidfd], [], [], SWEEP_WAIT_SECONDS)
            return
        for fd in ready:
            poll.unregister(fd)
            seconds = KEEPER_WAIT_SECONDS if fd == script_pidfd else SWEEP_WAIT_SECONDS
            if fd == report:  # the supervisor's pid, which the zygote has written
                with suppress(ValueError, ProcessLookupError):  # it is gone
                    poll.register(os.pidfd_open(int(os.read(report, 32))), select.POLLIN)
                    continue
            until = time.monotonic() + seconds
            deadline = until if deadline is None else min(deadline, until)
