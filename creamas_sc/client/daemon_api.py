"""The operations of a daemon: names, arguments and answers, once for both clients."""

from __future__ import annotations

import logging
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from creamas_sc.checkpoints.files import Checkpoints, find_run
from creamas_sc.client.class_resolution import RemoteClasses, script_file, version
from creamas_sc.errors import CreamasError, DeadlineExceeded, DecodeError, EncodeError
from creamas_sc.nodes import Nodes
from creamas_sc.nodes import of as nodes_of
from creamas_sc.reports import SlaveReceipt, StopReport
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.results.record import Record
from creamas_sc.rpc.rounds.plan import check_calls
from creamas_sc.runtime.class_loading import end_script_load
from creamas_sc.runtime.main_script import MainScript
from creamas_sc.runtime.paths import check_name, others_may_write
from creamas_sc.runtime.validation import (
    check_count,
    check_mapping,
    check_mappings,
    check_place,
    check_places,
    make_folder,
)
from creamas_sc.supervisor_client.messages import MAX_SLAVES, ProcessOrder, os_bytes, os_text
from creamas_sc.supervisor_client.spec import HOST_ENTRY, HostSpec, pack, process_order, unpack
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import MAX_CONTROL_FRAME_BYTES

if TYPE_CHECKING:
    from creamas_sc.runtime.stack_dumps import Answer

# A host answers at once, unless it is stuck.
ATTACH_SECONDS = 30.0
# Of the time in which a simulation must be ready, what nodes have to join.
NODES_SHARE = 0.7
ENVIRONMENT = "creamas_sc.core.environment:Environment"
# For the encoded arguments of a call; the rest of the frame is for its header.
MAX_BYTES = MAX_CONTROL_FRAME_BYTES - (1 << 16)

log = logging.getLogger(__name__)
_CODEC = Codec()


class Call(NamedTuple):
    """A call that is ready to be sent; the target is an agent's address, or None."""

    target: str | None
    method: str
    payload: Payload


class Request(NamedTuple):
    """A call to the daemon, and how to read the answer.

    Attributes:
        read: Turns the daemon's answer into what the user gets; None if it is that already.
        undo: The request that removes what this one creates; None if it creates nothing.
    """

    method: str
    args: tuple[Any, ...] = ()
    read: Callable[[Any], Any] | None = None
    undo: Request | None = None

    def encoded(self) -> Call:
        """Encode the call.

        Raises:
            EncodeError: They are larger than the daemon allows.
        """
        payload = _CODEC.encode((self.args, {}))
        size = len(payload.body) + sum(map(len, payload.parts))
        if size > MAX_BYTES:
            raise EncodeError(
                f"the arguments of {self.method} take {size} bytes, and the daemon takes "
                f"{MAX_BYTES} at most: pass large data in a file"
            )
        return Call(None, self.method, payload)

    def answer(self, payload: Payload) -> Any:
        """Decode the daemon's answer for the user."""
        answer = _CODEC.decode(payload)
        return answer if self.read is None else self.read(answer)

    def undo_after(self, error: BaseException) -> Request | None:
        """Return what to request if the caller gets ``error`` and the call may yet succeed."""
        if isinstance(error, DeadlineExceeded):
            return self.undo if error.may_have_run and not error.acknowledged else None
        return None if isinstance(error, CreamasError) else self.undo


STATUS = Request("status")


def attachment(name: str) -> Request:
    """Become a client of a simulation's host."""
    about = {"python": sys.version_info[:2], "script": script_file(), "pid": os.getpid()}
    return Request("attach", (check_name(name, "simulation"), about))


class DaemonAPI:
    """The operations of a daemon; the async client's are awaited.

    Attributes:
        daemon: The daemon's name.
        socket: Where it listens.
        pid: Its process.
        python: Major and minor version of the Python that runs it and its simulations.
    """

    def __init__(self, daemon: str, socket: Path) -> None:
        self.daemon = daemon
        self.socket = socket
        self.pid = 0
        self.python = (0, 0)

    def _greeted(self, status: Mapping[str, Any]) -> None:
        """Note what the daemon says about itself."""
        self.pid = status["pid"]
        self.python = version(status["python"])

    @abstractmethod
    def _request(self, request: Request) -> Any:
        """Make a request, and return its answer or a coroutine that does."""

    @abstractmethod
    def _request_on(self, nodes: Nodes, make: Callable[[], Request]) -> Any:
        """Have nodes started that join the daemon, and then make a request."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of the daemon {self.daemon!r} (pid {self.pid})>"

    # ---- operations

    def create(
        self,
        name: str,
        *,
        menv_cls: type | str = "creamas_sc.mp:MultiEnvironment",
        addr: tuple[str, int] = ("localhost", 0),
        env_cls: type | str = ENVIRONMENT,
        mgr_cls: type | str | None = "creamas_sc.mp:MultiEnvManager",
        seed: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        slave_addrs: Sequence[tuple[str, int]] | int = (),
        slave_env_cls: type | str = ENVIRONMENT,
        slave_mgr_cls: type | str = "creamas_sc.mp:EnvManager",
        slave_kwargs: Sequence[Mapping[str, Any]] | None = None,
        restart: str | RestartPolicy = "temporary",
        calls: str = "rounds",
        record: Any = None,
        agent_classes: Sequence[type | str] = (),
        nodes: Any = None,
        place: str | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Create a simulation, which lives until it is closed, with or without clients.

        Its processes inherit the environment variables and working directory of this process. They
        look for modules in the folder of its script, along its PYTHONPATH and in its working
        directory, unless others may write there. If the call fails or is cancelled, nothing of the
        simulation is left.

        Args:
            name: The simulation's name: up to 64 letters, digits, ".", "_" and "-".
            menv_cls: `MultiEnvironment` or a subclass. Any class may be given by name,
                "package.module:Class", and need not be importable here then.
            addr, env_cls, mgr_cls, seed, env_kwargs: Arguments of its constructor.
            slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs: Arguments of `spawn_slaves`;
                without addresses the simulation starts without slaves.
            restart: What happens when a slave is lost. "temporary": the simulation goes on without
                it. "transient": it is started again unless it ended normally. "permanent": it is
                started again however it ended. "all": the simulation ends. A `RestartPolicy` also
                limits the restarts, after which the simulation ends; the default is 3 in 60 s.
            calls: How calls between agents go in a step. "rounds": all at once, again and again,
                so that a seed gives the same at any number of slaves. "free": each at once.
            record: A folder, or a `creamas_sc.results.Record`, whose ``metrics`` must be a name:
                each step is recorded there.
            agent_classes: Classes that will be spawned: all slaves load them at their start, side
                by side. Any other is loaded by each slave when it is first spawned there.
            nodes: Other machines for slaves, on each of which a node joins the daemon: a cluster or
                client of dask.distributed, which starts them, and on which they stay; or
                `creamas_sc.nodes.Nodes`, whose ``count`` and ``seconds`` say what is waited for.
                The daemon has to listen for nodes: see ``creamas-supervisor start --help``.
            place: Where slaves run, as of `spawn_slaves`.
            timeout: Seconds until the simulation must be ready.

        Returns:
            A dict with "name", "pid" (of its host) and "addrs" (of its slaves' managers).

        Raises:
            BadValue: The name is not valid or is taken, or another argument is not valid.
            LoadError: A class cannot be loaded by its name.
            StartError: The simulation did not start; nothing of it is left.
        """
        end_script_load()
        policy, found = RestartPolicy.of(restart), nodes_of(nodes)
        check_calls(calls)
        remote = RemoteClasses(self.daemon, self.python)
        if isinstance(slave_addrs, int):
            check_count("slave_addrs", slave_addrs, 0)
            slave_addrs = [(addr[0], 0)] * min(slave_addrs, MAX_SLAVES + 1)
        spec = HostSpec(
            name=check_name(name, "simulation"),
            menv_cls=remote.name(menv_cls),
            addr=check_place(addr),
            env_cls=remote.name(env_cls),
            mgr_cls=None if mgr_cls is None else remote.name(mgr_cls),
            env_kwargs=remote.kwargs(check_mapping(env_kwargs or {}, "env_kwargs")),
            seed=seed,
            slave_addrs=check_places(slave_addrs),
            slave_env_cls=remote.name(slave_env_cls),
            slave_mgr_cls=remote.name(slave_mgr_cls),
            slave_kwargs=None
            if slave_kwargs is None
            else [remote.kwargs(k) for k in check_mappings(slave_kwargs)],
            restart=astuple(policy),
            agent_classes=[remote.name(cls) for cls in agent_classes],
            calls=calls,
            record=None if record is None else Record.of(record).fields(),
            place="nodes" if place is None and found is not None else place,
        )
        about = {
            **{key: getattr(spec, key) for key in ("menv_cls", "env_cls", "mgr_cls", "seed")},
            "slaves": len(spec.slave_addrs),
            **{key: getattr(spec, key) for key in ("slave_env_cls", "slave_mgr_cls")},
            "restart": str(policy),
            "calls": calls,
            "record": None if spec.record is None else spec.record["folder"],
            "script": script_file(),
        }

        def request() -> Request:
            """What to ask for, once nodes are being started."""
            wait = None if found is None else (found.count, found.seconds)
            if timeout is not None:  # so that too few nodes are an error that says so
                count, seconds = wait or (1, timeout)
                wait = count, min(seconds, NODES_SHARE * timeout)
            packed = replace(spec, nodes=wait).encode()
            return _creation(
                name, process_order(HOST_ENTRY, packed, _search_path()), about, timeout
            )

        if found is None or type(found) is Nodes:  # which other means start
            return self._request(request())
        return self._request_on(found, request)

    def resume(
        self,
        name: str,
        folder: str | os.PathLike[str],
        *,
        slaves: int | None = None,
        step: int | None = None,
        changed_code: bool = False,
        place: str | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Create a simulation that goes on with a recorded run, as `creamas_sc.resume` does.

        Its processes look for modules where those of the run did, and it goes on with the steps
        that it took by itself, if it did.

        Args:
            name: The simulation's new name.
            folder, slaves, step, changed_code: As of `creamas_sc.resume`.
            place: Where slaves run, as of `spawn_slaves`; by default all beside the daemon.
            timeout: Seconds until the simulation must be ready.

        Returns:
            As `create`.

        Raises:
            CheckpointError, BadValue, LoadError, StartError: As of `creamas_sc.resume`.
        """
        end_script_load()
        path = find_run(Path(folder).absolute())
        manifest = Checkpoints(path).manifest(step)
        resumed = {"path": str(path), "step": step, "slaves": slaves}
        spec = HostSpec(
            name=check_name(name, "simulation"),
            resumed={**resumed, "changed_code": changed_code},
            place=place,
        )
        script = None if manifest.script is None else MainScript(*manifest.script)
        order = process_order(HOST_ENTRY, spec.encode(script=script), manifest.path)
        if os.path.isdir(manifest.cwd):
            order["cwd"] = os_bytes(manifest.cwd)
        about = {"record": str(path), "script": None if script is None else script.file}
        return self._request(_creation(name, order, about, timeout))

    def ls(self, all: bool = False) -> Any:
        """List the simulations.

        Args:
            all: Include the most recent ones that have ended.

        Returns:
            A dict for each simulation: "name", "state" ("starting", "running", "closing" or
            "ended"), "pid", "since" (seconds since 1970), "cause" of its end, and "host", its
            own status (None if it does not answer).
        """
        return self._request(Request("ls", (all,)))

    def inspect(self, name: str, *, environ: bool = False) -> Any:
        """Return all that the daemon knows of a simulation.

        Args:
            environ: Include the values of its environment variables, which may hold secrets.

        Returns:
            The dict of `ls` and "about" (how it was created), "cwd", "path", "environ" (the names
            of its variables, or a dict with their values), "processes", and "stop_results" of the
            processes that have ended.

        Raises:
            UnknownSimulation: There is no simulation of that name.
        """
        return self._request(Request("inspect", (name,), partial(_details, environ)))

    def status(self) -> Any:
        """Return the status of the daemon itself.

        Returns:
            A dict: "name", "pid", "version", "python", "since" (seconds since 1970), "socket",
            "log", and the numbers of "simulations" and "clients".
        """
        return self._request(STATUS)

    def nodes(self) -> Any:
        """List the machines that have joined the daemon, as nodes for slaves.

        Returns:
            A dict for each node: "name", "host", "pid", "cores", "memory" (in bytes), "engine",
            "version", "python", "processes" (how many run there), "heard" (seconds since it was
            heard) and "since" (seconds since 1970).
        """
        return self._request(Request("nodes"))

    def stacks(self, name: str, seconds: float = 1.0) -> Any:
        """Return where the code of a simulation's slaves on nodes is just now.

        Where that of its other processes is can be asked of them by
        `creamas_sc.runtime.stack_dumps.ask`, as ``creamas-supervisor dump`` does.

        Args:
            seconds: To wait for the slowest.

        Returns:
            A dict: slot -> `creamas_sc.runtime.stack_dumps.Answer`.

        Raises:
            UnknownSimulation: There is no simulation of that name.
        """
        return self._request(Request("stacks", (name, seconds), _answers))

    def node_access(self) -> Any:
        """Return what a node needs to join the daemon.

        Returns:
            A dict: "host", "port", "key", and the "key_file" on the daemon's machine that has it.

        Raises:
            BadValue: The daemon does not listen for nodes.
        """
        return self._request(Request("node_access"))

    def close(self, name: str, folder: str | None = None, timeout: float = 1.0) -> Any:
        """Close a simulation for all its clients; return when its processes are gone.

        Args:
            folder: Passed to `save_info` in its host and slaves, and to the agents' ``close``, as
                an absolute path; created if it does not exist.
            timeout: Seconds that each process has to save and close its agents.

        Returns:
            The `StopReport` of `MultiEnvironment.close`. If the host itself had to be killed, the
            only entry is the host's.

        Raises:
            UnknownSimulation: There is no simulation of that name.
            BadValue: The folder cannot be created, or has another user's link or folder where a
                slave would save; nothing was closed.
        """
        args = (name, timeout, pack((make_folder(folder), timeout)))
        return self._request(Request("close", args, partial(_report, name)))

    def kill(self, name: str, why: str = "") -> Any:
        """End a simulation at once, without saving; return how each of its processes ended.

        Args:
            why: The cause of its end that other clients see.

        Raises:
            UnknownSimulation: There is no simulation of that name.
        """
        return self._request(Request("kill", (name, why)))

    def stop(self, timeout: float = 1.0) -> Any:
        """Close all simulations and end the daemon.

        Args:
            timeout: Seconds that each process has to save and close its agents.

        Returns:
            A dict for each simulation: "name", how its host ended, and "report", a `StopReport`
            as `close` returns it.
        """
        return self._request(Request("stop", (timeout, pack((None, timeout))), _stopped))


def _creation(
    name: str, order: ProcessOrder, about: Mapping[str, Any], timeout: float | None
) -> Request:
    """The request that creates a simulation."""
    token = os.urandom(8).hex()
    undo = Request("undo_create", (name, token))
    about = {**about, "python": ".".join(map(str, sys.version_info[:3]))}
    return Request("create", (name, order, about, timeout, token), _created, undo)


def _search_path() -> list[str]:
    """Return where the simulation's processes look for modules before their own Python's path."""
    script = MainScript.of_this_process()
    folders = [] if script is None or script.package else [os.path.dirname(script.file)]
    folders += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    here = os.getcwd()
    if not others_may_write(here):
        folders.append(here)
    elif here not in map(os.path.abspath, folders):
        # Who puts a numpy.py there would have it run by this user.
        log.warning("%s is not searched for modules, since other users may write to it", here)
    return list(dict.fromkeys(map(os.path.abspath, folders)))


def _details(with_values: bool, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Read paths and variables, which travel as bytes."""
    environ = {os_text(key): os_text(value) for key, value in answer["environ"].items()}
    return {
        **answer,
        "cwd": os_text(answer["cwd"]),
        "path": [os_text(folder) for folder in answer["path"]],
        "environ": environ if with_values else sorted(environ),
    }


def _created(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": answer["name"], "pid": answer["pid"], **unpack(answer["info"])}


def _answers(told: Mapping[str, Any]) -> dict[str, Answer]:
    from creamas_sc.runtime.stack_dumps import Answer  # Unix only, as those who can be asked

    return {slot: Answer(*fields) for slot, fields in told.items()}


def _stopped(ends: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    stopped = []
    for end in ends:
        try:
            report = _report(end["name"], end)
        except DecodeError as error:  # the other reports can still be read
            text = f"the report of {end['name']!r} cannot be read here: {error}"
            report = StopReport(_report(end["name"], {**end, "payload": None}), errors=[text])
        stopped.append({**{key: end[key] for key in end if key != "payload"}, "report": report})
    return stopped


def _report(name: str, end: Mapping[str, Any]) -> StopReport:
    """Return the report of a simulation's host, or how the host ended if it sent no report."""
    if end["payload"]:
        report = unpack(end["payload"])
        if not isinstance(report, StopReport):
            raise DecodeError(f"the host of {name!r} returned {report!r} instead of a report")
        return report
    host = SlaveReceipt(
        address=name,
        pid=end["pid"],
        exit_code=end.get("exit_code"),
        signal=end.get("signal"),
        seconds=end.get("seconds", 0.0),
        graceful=end.get("graceful", False),
        ended_by=end.get("ended_by", "gone"),  # missing if it had ended before it was asked to
        errors=tuple(filter(None, [end.get("error")])),
    )
    return StopReport([host])
