"""Network namespaces as machines: each with an address, a host name and folders of its own.

``with machines(folder, 3) as (first, second, third)`` joins them with a switch; processes start
with `Machine.program`, and their pids are those of this machine. Nothing here has a name outside
the namespaces, which live as long as a process in them: each has a ``cat`` that ends with this
process, however it ends, and takes devices and addresses with it. So any number of tests may use
the same addresses at once. All processes of a machine are known by their namespace.

The switch is the kernel's bridge; if frames are delayed or lost, the same with netem, or, in a
kernel without it, `tests.support.switch`. By hand, ``nsenter --net --uts -t PID bash`` (of the
``cat``) is a shell on a machine.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import programs, switch
from tests.support.processes import children
from tests.support.programs import ROOT, Program

__all__ = ["Machine", "machines", "missing", "needs_machines"]

SECONDS = 10.0
POLL_SECONDS = 0.01
FOLDERS = ("XDG_RUNTIME_DIR", "TMPDIR", "HOME")


def _found(name: str) -> str:
    """The path of a command of the system, some of which not everybody has on the PATH."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return shutil.which(name, path=path) or ""


@functools.cache
def missing() -> str:
    """Why there can be no machines here; empty if there can."""
    if os.geteuid():
        return "only root can make network namespaces"
    for name in ("ip", "bridge", "nsenter", "unshare"):
        if not _found(name):
            return f"there is no `{name}` (packages iproute2 and util-linux)"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    tried = programs.run("unshare", "--net", "--uts", _found("ip"), "link", "add", "type", "veth")
    return tried.stderr.strip() and f"network namespaces do not work: {tried.stderr.strip()}"


needs_machines = pytest.mark.skipif(bool(missing()), reason=missing())


@functools.cache
def has_netem() -> bool:
    """Whether the kernel can delay and lose frames."""
    netem = [_found("tc"), "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return bool(_found("tc")) and not programs.run("unshare", "--net", *netem).returncode


class Machine:
    """A network namespace.

    Attributes:
        name: Its host name.
        address: Where the others reach it.
        folder: Has its XDG_RUNTIME_DIR, TMPDIR and HOME.
    """

    def __init__(self, name: str, address: str, folder: Path, pid: int) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self._pid = pid
        self._plug: Callable[[bool], None] = lambda plugged: None
        for each in FOLDERS:
            (folder / each).mkdir(mode=0o700, parents=True)

    def command(self, *words: str | Path) -> list[str]:
        """The command that runs another one on this machine, in the same process."""
        return [*_enter(self._pid), *map(str, words)]

    def environ(self, **more: str) -> dict[str, str]:
        """The variables of a program on this machine."""
        own = {each: str(self.folder / each) for each in FOLDERS}
        return programs.environ(**own, HOSTNAME=self.name, **more)

    def program(
        self, *words: str | Path, folder: Path = ROOT, stderr: int = subprocess.PIPE, **more: str
    ) -> Program:
        """Start a command with more variables; it is killed at the end of a ``with``."""
        return Program(self.command(*words), folder, stderr=stderr, env=self.environ(**more))

    def run(
        self, *words: str | Path, folder: Path = ROOT, seconds: float = programs.BOUND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its exit code is not checked."""
        return programs.run(
            *self.command(*words), folder=folder, seconds=seconds, env=self.environ()
        )

    def processes(self) -> dict[int, str]:
        """Pid and name of each process on it, whoever started it."""
        mine = os.readlink(f"/proc/{self._pid}/ns/net")
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self._pid:
                with suppress(OSError):  # it has just ended, or is a zombie
                    if os.readlink(entry / "ns/net") == mine:
                        found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def sent(self) -> tuple[int, int]:
        """How many frames and bytes it has sent to others."""
        lines = Path(f"/proc/{self._pid}/net/dev").read_text().splitlines()
        (counts,) = (line.split()[1:] for line in lines if line.strip().startswith("eth0:"))
        return int(counts[9]), int(counts[8])

    def wait_empty(self, seconds: float) -> float:
        """Wait until no process is left on it; how long that took.

        Raises:
            AssertionError: Some were left after ``seconds``.
        """
        began = time.monotonic()
        # Waiting for a list of pids would not do: a process may be forking right now.
        while left := self.processes():
            assert time.monotonic() - began < seconds, f"on {self.name} after {seconds} s: {left}"
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL all processes on it, as the loss of its power would."""
        own, killed = set(children(os.getpid())), set[int]()
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(left)
            time.sleep(POLL_SECONDS)
        for pid in killed - own:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)  # it has become ours

    def cut(self) -> None:
        """Have the switch drop all frames from and to it: nobody is told."""
        self._plug(False)

    def mend(self) -> None:
        """The reverse of `cut`."""
        self._plug(True)

    def set_link(self, up: bool) -> None:
        """Set its own device up or down: it sees that itself, and the others do not."""
        _check(self.run(_found("ip"), "link", "set", "eth0", "up" if up else "down"))


@contextmanager
def machines(
    folder: Path, count: int, *, delay: float = 0.0, loss: float = 0.0, seed: int = 0
) -> Iterator[list[Machine]]:
    """Have machines for the block; what runs on them at its end is killed.

    Args:
        folder: Gets a folder for each.
        delay: Seconds from one to another; a round trip takes twice as long.
        loss: The probability that a frame is lost.
        seed: Chooses which, if `tests.support.switch` does.
    """
    with ExitStack() as stack:
        made = []
        for place in range(count):
            name = f"machine-{place}"
            pid = stack.enter_context(_namespace())
            made.append(Machine(name, f"10.77.0.{place + 1}", folder / name, pid))
        if (delay or loss) and not has_netem():
            paths = [f"/proc/{machine._pid}/ns/net" for machine in made]
            plug = stack.enter_context(_slow_switch([f"{delay}", f"{loss}", f"{seed}", *paths]))
        else:
            plug = _bridge(stack.enter_context(_namespace()), made, delay, loss)
        for place, machine in enumerate(made):
            machine._plug = functools.partial(plug, place)
            _ip(machine._pid, *_own_settings(place, machine))
            _check(machine.run("sh", "-c", 'echo "$HOSTNAME" > /proc/sys/kernel/hostname'))
            stack.callback(machine.kill)
        yield made


def _own_settings(place: int, machine: Machine) -> list[str]:
    return [
        "link set lo up",
        f"link set eth0 address {switch.mac(place)}",
        f"addr add {machine.address}/24 dev eth0",
        "link set eth0 up",
    ]


@contextmanager
def _namespace() -> Iterator[int]:
    """The pid of a process in a new network namespace; it ends with this process."""
    command = ["unshare", "--net", "--uts", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1), "no network namespace"
        yield process.pid
        # Leaving the block closes its standard input, and so ends it.


def _bridge(pid: int, machines: list[Machine], delay: float, loss: float) -> Callable[..., None]:
    """Join the machines in a namespace of the switch; returns what plugs one in or unplugs it."""
    lines = ["link add switch type bridge", "link set switch up"]
    for place, machine in enumerate(machines):
        lines += [
            f"link add port{place} type veth peer name eth0 netns {machine._pid}",
            f"link set port{place} master switch up",
        ]
    _ip(pid, *lines)
    if delay or loss:
        for place in range(len(machines)):
            netem = f"netem limit 100000 delay {delay * 1000:g}ms loss {loss * 100:g}%"
            words = [_found("tc"), *f"qdisc add dev port{place} root {netem}".split()]
            _check(programs.run(*_enter(pid), *words))

    def plug(place: int, plugged: bool) -> None:
        words = f"link set dev port{place} state {3 if plugged else 0}".split()
        # Disabled or forwarding: the carrier stays.
        _check(programs.run(*_enter(pid), _found("bridge"), *words))

    return plug


@contextmanager
def _slow_switch(arguments: list[str]) -> Iterator[Callable[..., None]]:
    command = [*programs.script_command(Path(switch.__file__)), *arguments]
    with Program(command, stderr=None) as program:
        program.read_until("", SECONDS)

        def plug(place: int, plugged: bool) -> None:
            program.say(f"{'mend' if plugged else 'cut'} {place}")
            program.read_until("", SECONDS)

        yield plug


def _enter(pid: int) -> list[str]:
    return ["nsenter", "--net", "--uts", "-t", str(pid)]


def _ip(pid: int, *lines: str) -> None:
    command = [*_enter(pid), _found("ip"), "-batch", "-"]
    done = subprocess.run(
        command,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    _check(done)


def _check(done: subprocess.CompletedProcess[str]) -> None:
    assert not done.returncode, f"{done.args}: {done.stderr}"
