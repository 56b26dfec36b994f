"""What can be asked of a daemon: one place for the names, arguments and answers of both clients."""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from creamas_sc.client.class_resolution import RemoteClasses, our_script, version
from creamas_sc.errors import BadValue, CreamasError, DeadlineExceeded, DecodeError, EncodeError
from creamas_sc.processes.spec import HOST_ENTRY, HostSpec, pack, process_order, unpack
from creamas_sc.reports import SlaveReceipt, StopReport
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.runtime.class_loading import MainScript, end_script_load
from creamas_sc.runtime.paths import check_name
from creamas_sc.runtime.validation import (
    check_folder,
    check_mapping,
    check_mappings,
    check_place,
    check_places,
)
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import MAX_CONTROL_FRAME_BYTES

__all__ = [
    "ATTACH_SECONDS",
    "END_POLLS",
    "STOP_SECONDS",
    "TAKE_BACK_SECONDS",
    "Ask",
    "DaemonAPI",
]

# A host that is there answers at once, unless it is stuck.
ATTACH_SECONDS = 30.0
# How often the daemon is asked, half a second each, for the end of a host that has said goodbye.
END_POLLS = 8
# After the daemon has said that all is closed: its own end.
STOP_SECONDS = 5.0
# For the daemon to end what a call that was cancelled has made.
TAKE_BACK_SECONDS = 1.0
ENVIRONMENT = "creamas_sc.core.environment:Environment"
# Of a call's arguments; its frame has a head as well.
MAX_BYTES = MAX_CONTROL_FRAME_BYTES - (1 << 16)

_CODEC = Codec()


class Ask(NamedTuple):
    """A call to the daemon.

    Attributes:
        read: Makes of its answer what the user gets.
        undo: What takes back what the call has made, or is making; None where it makes nothing.
    """

    method: str
    args: tuple[Any, ...]
    read: Callable[[Any], Any]
    undo: Ask | None = None

    def encoded(self) -> Payload:
        """The arguments, to be sent.

        Raises:
            EncodeError: They are more than the daemon takes.
        """
        payload = _CODEC.encode((self.args, {}))
        size = len(payload.body) + sum(map(len, payload.parts))
        if size > MAX_BYTES:
            raise EncodeError(
                f"the arguments of {self.method} take {size} bytes, and the daemon takes "
                f"{MAX_BYTES} at most: have them read from a file"
            )
        return payload

    def answer(self, payload: Payload) -> Any:
        """What the daemon answered, for the user."""
        return self.read(_CODEC.decode(payload))

    def to_undo(self, error: BaseException) -> Ask | None:
        """What is to be asked where the caller gets ``error``, and the answer may be on its way."""
        if isinstance(error, DeadlineExceeded):
            return self.undo if error.may_have_run and not error.acknowledged else None
        return None if isinstance(error, CreamasError) else self.undo


def _as_told(answer: Any) -> Any:
    return answer


STATUS = Ask("status", (), _as_told)


def fate(name: str, pid: int) -> Ask:
    """How a simulation's host ended."""
    return Ask("fate", (name, pid), _as_told)


def attachment(name: str) -> Ask:
    """Become a client of a simulation's host."""
    about = {"python": sys.version_info[:2], "script": our_script(), "pid": os.getpid()}
    return Ask("attach", (check_name(name, "simulation"), about), _as_told)


class DaemonAPI:
    """A daemon's operations; of the async client each is awaited.

    Attributes:
        daemon: The daemon's name.
        socket: Where it listens.
        pid: Its process.
        python: Major and minor of its Python, and so of its simulations'.
    """

    def __init__(self, daemon: str, socket: Path) -> None:
        self.daemon = daemon
        self.socket = socket
        self.pid = 0
        self.python = (0, 0)

    def _meet(self, status: Mapping[str, Any]) -> None:
        self.pid = status["pid"]
        self.python = version(status["python"])

    @abstractmethod
    def _ask(self, ask: Ask) -> Any:
        """Have the daemon answer."""

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
        slave_addrs: Sequence[tuple[str, int]] = (),
        slave_env_cls: type | str = ENVIRONMENT,
        slave_mgr_cls: type | str = "creamas_sc.mp:EnvManager",
        slave_kwargs: Sequence[Mapping[str, Any]] | None = None,
        restart: str | RestartPolicy = "temporary",
        timeout: float | None = None,
    ) -> Any:
        """Create a simulation, which lives until it is closed, whoever comes and goes.

        Its processes get this one's environment variables, working directory, and, to find
        modules, the folder of its script, the working directory and PYTHONPATH. Where the call is
        cancelled, nothing of it is left.

        Args:
            name: The simulation's: up to 64 letters, digits, ".", "_" and "-".
            menv_cls: `MultiEnvironment` or a subclass; all classes may be given by name,
                "package.module:Class", and need not be importable here then.
            addr, env_cls, mgr_cls, seed, env_kwargs: For its constructor.
            slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs: For `spawn_slaves`; without
                addresses there are no slaves yet.
            restart: What the loss of a slave leads to: "temporary", the simulation goes on without
                it; "transient", it is started again unless it ended in order; "permanent", it is
                started again however it ended; "all", the simulation ends. Or a `RestartPolicy`,
                which says after how many restarts in how many seconds the simulation ends: 3 in 60
                without.
            timeout: Seconds that all of it may take.

        Returns:
            A dict: "name"; "pid" of its host; "addrs", the addresses of its slaves' managers.

        Raises:
            BadValue: The name will not do, or is taken; another argument will not do.
            LoadError: A class cannot be loaded by its name.
            StartError: It did not come up; nothing of it is left.
        """
        end_script_load()
        policy = RestartPolicy.of(restart)
        reach = RemoteClasses(self.daemon, self.python)
        spec = HostSpec(
            name=check_name(name, "simulation"),
            menv_cls=reach.name(menv_cls),
            addr=check_place(addr),
            env_cls=reach.name(env_cls),
            mgr_cls=None if mgr_cls is None else reach.name(mgr_cls),
            env_kwargs=reach.kwargs(check_mapping(env_kwargs or {}, "env_kwargs")),
            seed=seed,
            slave_addrs=check_places(slave_addrs),
            slave_env_cls=reach.name(slave_env_cls),
            slave_mgr_cls=reach.name(slave_mgr_cls),
            slave_kwargs=None
            if slave_kwargs is None
            else [reach.kwargs(k) for k in check_mappings(slave_kwargs)],
            restart=policy.told(),
        )
        order = process_order(HOST_ENTRY, spec.encode(), _search_path())
        token = os.urandom(8).hex()
        undo = Ask("take_back", (name, token), _as_told)
        return self._ask(Ask("create", (name, order, _about(spec), timeout, token), _created, undo))

    def ls(self, all: bool = False) -> Any:
        """A dict for each simulation: "name", "state" ("starting", "running", "closing", "ended"),
        "pid", "since" (seconds since 1970), "cause" of its end, and "host", what it tells of
        itself (None where it does not answer).

        Args:
            all: Also the last ones that have ended.
        """
        return self._ask(Ask("ls", (all,), _as_told))

    def inspect(self, name: str) -> Any:
        """What there is to know of a simulation: as `ls`, and "about" (how it was created), "cwd",
        "path", "environ", "processes", and "receipts" of those that have ended.

        Raises:
            UnknownSimulation: There is none of that name.
        """
        return self._ask(Ask("inspect", (name,), _as_told))

    def status(self) -> Any:
        """The daemon itself: "name", "pid", "version", "python", "since", "socket", "log", and how
        many "simulations" and "clients" it has."""
        return self._ask(STATUS)

    def close(self, name: str, folder: str | None = None, timeout: float = 1.0) -> Any:
        """Close a simulation, for everybody; returns when its processes are gone.

        Args:
            folder: Passed to `save_info` in its host and slaves, and to the agents' ``close``, as
                an absolute path; made if it is not there.
            timeout: Seconds that each has to save and close its agents.

        Returns:
            The `StopReport` of `MultiEnvironment.close`. Where the host itself had to be forced,
            its one entry is the host's.

        Raises:
            UnknownSimulation: There is none of that name.
            BadValue: The folder cannot be made; nothing was closed.
        """

        def read(told: Mapping[str, Any]) -> StopReport:
            return _receipt(name, told)

        payload = pack((_made(folder), timeout))
        return self._ask(Ask("close", (name, timeout, payload), read))

    def kill(self, name: str, why: str = "") -> Any:
        """End a simulation at once, saving nothing; how each of its processes ended.

        Args:
            why: For the cause of its end that others are told.
        """
        return self._ask(Ask("kill", (name, why), _as_told))

    def stop(self, timeout: float = 1.0) -> Any:
        """Close all simulations and end the daemon.

        Args:
            timeout: Seconds that each process has to save and close its agents.

        Returns:
            A dict for each simulation: "name", how its host ended, and "receipt", as of `close`.
        """
        return self._ask(Ask("stop", (timeout, pack((None, timeout))), _stopped))


def _made(folder: str | None) -> str | None:
    check_folder(folder)
    if folder is None:
        return None
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise BadValue(f"the folder {folder} cannot be made: {error.strerror}") from None
    return os.path.abspath(folder)


def _search_path() -> list[str]:
    """Where the simulation's processes look for modules beside what their Python has."""
    script = MainScript.of_this_process()
    folders = [] if script is None or script.package else [os.path.dirname(script.file)]
    folders.append(os.getcwd())
    folders += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return list(dict.fromkeys(map(os.path.abspath, folders)))


def _about(spec: HostSpec) -> dict[str, Any]:
    return {
        "menv_cls": spec.menv_cls,
        "env_cls": spec.env_cls,
        "mgr_cls": spec.mgr_cls,
        "seed": spec.seed,
        "slaves": len(spec.slave_addrs),
        "slave_env_cls": spec.slave_env_cls,
        "slave_mgr_cls": spec.slave_mgr_cls,
        "restart": str(RestartPolicy.of(spec.restart)),
        "script": our_script(),
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def _created(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": told["name"], "pid": told["pid"], **unpack(told["info"])}


def _stopped(all_told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_with_receipt(told) for told in all_told]


def _with_receipt(told: Mapping[str, Any]) -> dict[str, Any]:
    try:
        receipt = _receipt(told["name"], told)
    except DecodeError as error:  # the others' are to be had all the same
        text = f"the receipt of {told['name']!r} cannot be read here: {error}"
        receipt = StopReport(_receipt(told["name"], {**told, "payload": None}), errors=[text])
    return {**{key: told[key] for key in told if key != "payload"}, "receipt": receipt}


def _receipt(name: str, told: Mapping[str, Any]) -> StopReport:
    """What the host said at its end, or, where it said nothing, how it ended."""
    if told["payload"]:
        receipt = unpack(told["payload"])
        if not isinstance(receipt, StopReport):
            raise DecodeError(f"the host of {name!r} returned no receipt but {receipt!r}")
        return receipt
    host = SlaveReceipt(
        address=name,
        pid=told["pid"],
        exit_code=told.get("exit_code"),
        signal=told.get("signal"),
        seconds=told.get("seconds", 0.0),
        graceful=told.get("graceful", False),
        ended_by=told.get("ladder", "gone"),  # it had ended when it was to be asked
        errors=tuple(filter(None, [told.get("error")])),
    )
    return StopReport([host])
