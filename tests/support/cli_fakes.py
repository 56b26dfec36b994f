"""A client without a daemon, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from creamas_sc.errors import ConnectionLost, UnknownSimulation
from creamas_sc.reports import SlaveReceipt, StopReport

NAME = "novelty"
ADDRS = ["tcp://localhost:5556/0", "tcp://localhost:5557/0"]


def progress(state: str = "idle", step: int = 0, of: int | None = None, **more: Any) -> Any:
    """What a simulation tells of itself."""
    return {
        "state": state,
        "step": step,
        "of": of,
        "acts_per_second": 1234.5 if state == "stepping" else None,
        "seconds_left": None if of is None else 61.0,
        "error": "",
        "age": step,
        "agents": 24,
        "slaves": 2,
        "artifacts": 1,
        "clients": 1,
        **more,
    }


def summary(**more: Any) -> Any:
    """What `ls` shows of a simulation."""
    fields = {"name": NAME, "state": "running", "pid": 7, "since": 0.0, "cause": ""}
    return {**fields, "host": progress(), **more}


class FakeSimulation:
    """Does what `answers` hold for a method, in turn; an exception is raised."""

    def __init__(self) -> None:
        self.timeout: float | None = None
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, list[Any]] = {}
        self.name = NAME
        self.detached = False
        self.next_events: Callable[..., Any] = self._next_events

    def _next_events(self, *args: Any) -> Any:
        return self._answer("next_events", args, {}, (0, []))

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._answer(method, args, kwargs, progress())

    def _answer(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], usual: Any
    ) -> Any:
        self.calls.append((method, args, kwargs))
        answers = self.answers.get(method) or [usual]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def call_agent(self, *args: Any) -> Any:
        return self._answer("call_agent", args, {}, None)

    def get_addrs(self) -> list[str]:
        return ADDRS

    def called(self, method: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for name, args, kwargs in self.calls if name == method]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detached = True


class FakeClient:
    """A daemon that has one simulation."""

    def __init__(self) -> None:
        self.timeout: float | None = 10.0
        self.sim = FakeSimulation()
        self.summaries = [summary()]
        self.created: dict[str, Any] = {}
        self.killed: list[str] = []
        self.killed_why = ""
        self.error: BaseException | None = None
        self.ended = ""
        self.report = StopReport([SlaveReceipt(ADDRS[0], 8, 0, None, 0.5, True, "request")])
        self.stopped: list[dict[str, Any]] = []
        self.nodes_found: list[dict[str, Any]] = []
        self.access: dict[str, Any] | BaseException = {}
        self.disconnected = 0
        self.socket = Path("/no/daemon.sock")

    def _find(self, name: str) -> None:
        if self.error is not None:
            raise self.error
        if name not in (NAME, self.created.get("name")):
            raise UnknownSimulation(f"no simulation {name!r}: there are {NAME}; `create` makes one")

    def create(self, name: str, **kwargs: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.created = {"name": name, **kwargs}
        return {"name": name, "pid": 7, "addrs": ADDRS[: len(kwargs.get("slave_addrs", ()))]}

    def ls(self, all: bool = False) -> list[Any]:
        if self.error is not None:
            raise self.error
        return self.summaries

    def status(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        counts = {"simulations": 1, "clients": 1}
        return {"name": "default", "pid": 6, "since": 0.0, "log": "", **counts}

    def nodes(self) -> list[dict[str, Any]]:
        return self.nodes_found

    def node_access(self) -> dict[str, Any]:
        if isinstance(self.access, BaseException):
            raise self.access
        return self.access

    def inspect(self, name: str, *, environ: bool = False) -> Any:
        if self.ended:
            return summary(state="ended", cause=self.ended, host=None)
        self._find(name)
        processes = [{"slot": "host", "name": "host novelty", "pid": 7}]
        variables = {"TOKEN": "secret", "PATH": "/bin"}
        more = {"about": {"seed": 1}, "cwd": "/", "path": ["/p"], "stop_results": []}
        more["environ"] = variables if environ else sorted(variables)
        host = progress(addrs=[ADDRS[0]], pids=[8], slots=["slave-0"])
        processes.append({"slot": "slave-0", "name": "slave-0", "pid": 8})
        return {**summary(host=host), **more, "processes": processes}

    def attach(self, name: str) -> FakeSimulation:
        if self.ended:
            raise UnknownSimulation(f"simulation {name!r} has ended: {self.ended}")
        self._find(name)
        return self.sim

    def close(self, name: str, folder: str | None = None, timeout: float = 1.0) -> StopReport:
        self._find(name)
        self.created["closed"] = (folder, timeout)
        return self.report

    def kill(self, name: str, why: str = "") -> list[Any]:
        if self.error is not None:
            raise self.error
        self.killed.append(name)
        self.killed_why = why
        return []

    def stop(self, timeout: float = 1.0) -> list[Any]:
        if self.error is not None:
            raise self.error
        return self.stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnected += 1


def lost() -> ConnectionLost:
    """There is no daemon."""
    return ConnectionLost("start it with `creamas-supervisor start`", may_have_run=False)
