"""Runs `tests.support.far_script` on a machine, and nodes on others."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from creamas_sc.supervisor_client.node_key import make_key
from tests.support.far_script import BEGINNINGS, OVERLAPS, Settings, dump, right
from tests.support.machines import POLL_SECONDS, Machine
from tests.support.programs import Program

__all__ = ["FarSociety", "slaves_on", "wait_none"]

PORT = 5555
SECONDS = 60.0


class FarSociety:
    """A script on the first machine, with a node and slaves on each of the others.

    Args:
        machines: With one alone, that has the slaves, and there are no nodes.
        folder: Gets the key, locks and standard errors.
        more: Settings of the script.

    Attributes:
        script: Its program.
        nodes: Their programs, by machine.
        daemon: Its program, with the setting ``daemon``.
        started: Seconds that its slaves took to start.
        outcomes: Of its steps.
    """

    daemon: Program

    def __init__(self, machines: list[Machine], folder: Path, **more: Any) -> None:
        self.machine, *self.others = machines
        self.folder = folder
        self.nodes: dict[Machine, Program] = {}
        self.started = 0.0
        self.outcomes: list[dict[str, Any]] = []
        more = {"slaves": 2 * max(1, len(self.others)), **more}
        self.settings = Settings(
            folder=str(folder),
            host=self.machine.address if self.others else "localhost",
            port=PORT,
            key_file=str(folder / "nodes.key"),
            nodes=len(self.others),
            **more,
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        make_key(Path(self.settings.key_file))
        with ExitStack() as self._stack:
            self.start_daemon()
            argument = dump(self.settings)
            self.script = self._program(
                self.machine, sys.executable, "-m", "tests.support.far_script", argument
            )
            self.start_nodes()
            ready = self.answer("ready")
            self.started = ready["started"]
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def start_daemon(self) -> None:
        """Start a daemon if it is to have the simulation."""
        if self.settings.daemon:
            listen = f"{self.settings.host}:{self.settings.port}"
            words = ["-m", "supervisor.cli", "run", "--daemon", self.settings.daemon]
            words += ["--listen", listen, "--node-key", self.settings.key_file]
            self.daemon = self._program(self.machine, sys.executable, *words)
            self.daemon.read_until(".sock", SECONDS)

    def start_nodes(self) -> None:
        """Start all nodes."""
        for each in self.others:
            self.start_node(each)

    def start_node(self, machine: Machine) -> None:
        """Start a node on a machine, which joins the script's supervisor."""
        join = f"{self.settings.host}:{self.settings.port}"
        words = [
            "-m",
            "supervisor.cli",
            "node",
            "--join",
            join,
            "--key-file",
            self.settings.key_file,
        ]
        self.nodes[machine] = self._program(machine, sys.executable, *words)

    def _program(self, machine: Machine, *words: str) -> Program:
        errors = open(self.folder / f"{machine.name}.stderr", "ab")
        with errors:
            program = Program(machine.command(*words), env=machine.environ(), stderr=errors)
        return self._stack.enter_context(program)

    def errors(self, machine: Machine) -> str:
        """What its program has written to its standard error."""
        return (self.folder / f"{machine.name}.stderr").read_text()

    def answer(self, word: str) -> dict[str, Any]:
        """Wait for the script's answer with that word."""
        try:
            said: dict[str, Any] = json.loads(self.script.read_until(f'"{word}"', SECONDS))
        except AssertionError as error:
            for each in [self.machine, *self.others]:
                error.add_note(f"{each.name}: {self.errors(each)[-3000:]}")
            raise
        return said

    def begin_step(self) -> None:
        """Have a step taken."""
        self.script.say("step")

    def finish_step(self) -> dict[str, Any]:
        """The outcome of a step that was begun. Results, if it has any, are right.

        Raises:
            AssertionError: They are not, or two slaves of one place have been there at once.
        """
        outcome = self.answer("step")
        self.outcomes.append(outcome)
        if "results" in outcome:
            agents = self.settings.slaves * self.settings.agents
            # With free calls they come slave after slave.
            order = list if self.settings.calls == "rounds" else sorted
            assert order(outcome["results"]) == order(right(outcome["step"], agents))
        self.check_overlaps()
        return outcome

    def step(self) -> dict[str, Any]:
        """Both."""
        self.begin_step()
        return self.finish_step()

    def step_until_whole(self) -> list[dict[str, Any]]:
        """Take steps until one loses nobody; the outcomes of the others."""
        lost: list[dict[str, Any]] = []
        while "lost" in (outcome := self.step()):
            assert len(lost) < self.settings.slaves, lost
            lost.append(outcome)
        return lost

    def where(self) -> dict[str, tuple[int, str]]:
        """The process and machine of each agent."""
        self.script.say("where")
        return {addr: (pid, host) for addr, (pid, host) in self.answer("where")["where"].items()}

    def wait_nodes(self) -> None:
        """Wait until all machines have joined, again if need be."""
        began = time.monotonic()
        hosts: list[str] = []
        while set(hosts) != {each.address for each in self.others}:
            assert time.monotonic() - began < SECONDS, f"{hosts} have joined"
            time.sleep(POLL_SECONDS)
            self.script.say("nodes")
            hosts = self.answer("nodes")["nodes"]

    def check_overlaps(self) -> None:
        """Check that never two slaves of one place were there at once."""
        overlaps = self.folder / OVERLAPS
        if overlaps.exists():
            began = (self.folder / BEGINNINGS).read_text()
            raise AssertionError(f"at once: {overlaps.read_text()} of {began}")

    def close(self) -> None:
        """Have the script end in order; all nodes end, too."""
        assert self.script.process.stdin is not None
        self.script.process.stdin.close()
        self.answer("closed")
        assert self.script.process.wait(SECONDS) == 0
        self.end_nodes()
        for each in [self.machine, *self.others]:
            each.wait_empty(SECONDS)

    def end_nodes(self) -> None:
        """End what nodes outlive, or what has started them: with the script, all end."""
        if self.settings.daemon:
            self.daemon.signal(signal.SIGTERM)

    def stop_node(self, machine: Machine, stopped: bool) -> None:
        """SIGSTOP or SIGCONT a machine's node."""
        os.kill(self.nodes[machine].pid, signal.SIGSTOP if stopped else signal.SIGCONT)


def slaves_on(machine: Machine) -> list[int]:
    """The pids of a machine's slaves, in their order."""
    named = {name: pid for pid, name in machine.processes().items() if "slave-" in name}
    return [named[name] for name in sorted(named)]


def wait_none(machine: Machine, name: str, seconds: float) -> float:
    """Wait until a machine has no process with that in its name; how long that took.

    Raises:
        AssertionError: It had some after ``seconds``.
    """
    began = time.monotonic()
    while any(name in each for each in machine.processes().values()):
        assert time.monotonic() - began < seconds, f"{machine.name}: {machine.processes()}"
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began
