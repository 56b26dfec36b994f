"""Goes on with a recorded run from a checkpoint, or elsewhere from there.

The order matters: nothing of the record is changed before the simulation is there as it was, and
what fails until then leaves everything as it is found.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import trio

from creamas_sc.checkpoints.files import Checkpoints, Manifest, find_run, read_frames, refusal
from creamas_sc.core import kept_state
from creamas_sc.errors import AgentError, AgentErrors, CreamasError
from creamas_sc.mp.checkpoint_parts import ENVIRONMENT, SETUP, STATE, artifact_frames, moves
from creamas_sc.mp.multienvironment import MultiEnvironment
from creamas_sc.mp.placing import check_places_to_run
from creamas_sc.nodes import Nodes
from creamas_sc.nodes import of as nodes_of
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.restarts.slave import Slave
from creamas_sc.results.record import Record
from creamas_sc.results.run_file import RunFile
from creamas_sc.runtime.class_loading import end_script_load, load_subclass
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.event_loop import background_loop, current_loop
from creamas_sc.runtime.main_script import MAIN, MainScript
from creamas_sc.runtime.validation import check_count
from creamas_sc.serializers import get_serializers, to_serializers
from creamas_sc.supervisor_client.messages import ActorOrder
from creamas_sc.supervisor_client.spec import loaded_makers
from creamas_sc.util import run
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame

__all__ = ["Resumption", "branch", "resume"]


def resume(
    folder: str | os.PathLike[str],
    *,
    slaves: int | None = None,
    step: int | None = None,
    changed_code: bool = False,
    nodes: Any = None,
    place: str | Sequence[str] | None = None,
    as_coro: bool = False,
) -> Any:
    """Go on with a run from its last checkpoint.

    What the run has recorded of later steps is removed, and the same file goes on. With one seed
    and calls in rounds, it is as if the run had never been interrupted, at any number of slaves;
    what `creamas_sc.verification` says of one seed holds here too. State of the user's modules, as
    global variables and caches, is not kept, nor the order of sets.

    Args:
        folder: The record's, with one run that has checkpoints; or the file of that run.
        slaves: How many; by default as many as there were, at the same addresses.
        step: Of the checkpoint; the last one by default.
        changed_code: Go on although the user's code is not what it was.
        nodes: Other machines for its slaves, as of `MultiEnvironment`; the folder must be the same
            there.
        place: Where they run, as of `MultiEnvironment.spawn_slaves`.
        as_coro: Return a coroutine instead of blocking.

    Returns:
        The `MultiEnvironment`, with its slaves and agents: ``steps_taken`` says how many steps it
        has taken, and a `Simulation` of it goes on counting there. To be closed like any other.

    Raises:
        CheckpointError: There is no such checkpoint, or it was changed, or the code was, or
            something of it cannot be made again; nothing has changed.
        BadValue: Another process writes the record, or it is damaged.
        LoadError, StartError: A class does not load, or a slave does not start.
    """
    end_script_load()
    where = nodes_of(nodes), place
    resumed = partial(_resume, Path(folder), None, slaves, step, changed_code, *where)
    return _at_home(resumed) if as_coro else run(resumed())


def branch(
    folder: str | os.PathLike[str],
    step: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    slaves: int | None = None,
    changed_code: bool = False,
    as_coro: bool = False,
) -> Any:
    """Begin another run where a checkpoint of one is; that one stays as it is.

    The new run has a file of its own in the same folder, with the steps up to there. What is
    different from there on is for the caller to set, by `MultiEnvironment.gather` say.

    Args:
        step: Of the checkpoint; the last one by default. ``Record(checkpoints_kept=...)`` says how
            many there are.
        parameters: Names and values, kept with the new run beside those of the old one.
        folder, slaves, changed_code, as_coro: As of `resume`, which has the result and the errors,
            too.
    """
    end_script_load()
    resumed = partial(_resume, Path(folder), dict(parameters or {}), slaves, step, changed_code)
    return _at_home(resumed) if as_coro else run(resumed())


class Resumption:
    """A run that goes on from a checkpoint; made by `open`, then `make`, `fill` and `go_on`.

    Attributes:
        setup: How the simulation was made.
    """

    def __init__(
        self,
        file: RunFile,
        checkpoints: Checkpoints,
        manifest: Manifest,
        slaves: int | None,
        branches: bool,
    ) -> None:
        self._file, self._checkpoints, self._manifest = file, checkpoints, manifest
        self._folder = checkpoints.place(manifest.step)
        self._branches = branches
        self._menv: MultiEnvironment | None = None
        self.setup = self._read_setup()
        self._slaves = self._slave_fields(slaves)

    @staticmethod
    async def open(
        path: Path, step: int | None = None, slaves: int | None = None, branches: bool = False
    ) -> Resumption:
        """Lock the file of a run, or that of a new one which ``branches``, and read a checkpoint.

        Raises:
            CheckpointError, BadValue: As of `resume`.
        """

        def read() -> Resumption:
            checkpoints = Checkpoints(path)
            file = RunFile.branch(path) if branches else RunFile.reopen(path)
            try:
                wanted = step
                if step is None:  # of later steps there may be some: what it was cut from, say
                    known = [each for each in checkpoints.steps() if each <= file.step]
                    wanted = known[-1] if known else None
                manifest = checkpoints.read(wanted)
                if not branches and manifest.run != file.id:
                    raise refusal(f"{checkpoints.folder} is of another run than {path}")
                if file.step < manifest.step:
                    have = f"{path} has the steps up to {file.step}"
                    raise refusal(f"{have}, and the checkpoint is of step {manifest.step}")
                return Resumption(file, checkpoints, manifest, slaves, branches)
            except BaseException:
                file.discard() if branches else file.close()
                raise

        if slaves is not None:
            check_count("slaves", slaves)
        return await trio.to_thread.run_sync(read)

    def _read_setup(self) -> Mapping[str, Any]:
        frame = self._master_frame(SETUP)
        codec = Codec(to_serializers(get_serializers()))
        setup: Mapping[str, Any] = codec.decode(Payload(frame.body, frame.parts))
        return setup

    def _master_frame(self, index: int) -> Frame:
        master = self._manifest.master
        (frame,) = read_frames(self._folder / master.name, master.sizes, [index])
        return frame

    def _slave_fields(self, slaves: int | None) -> list[dict[str, Any]]:
        """What the slaves are to be started with.

        Raises:
            CheckpointError: There cannot be another number of them.
        """
        fields = list(self.setup["slaves"])
        if slaves is None or slaves == len(fields):
            return fields
        ask = f"resume it with {len(fields)} slaves"
        if any({**each, "addr": None} != {**fields[0], "addr": None} for each in fields):
            raise refusal(f"the slaves have different classes or arguments: {ask}")
        states = set[bytes]()
        for part in self._manifest.slaves:
            (frame,) = read_frames(self._folder / part.name, part.sizes, [ENVIRONMENT])
            states.add(bytes(frame.body) + b"".join(map(bytes, frame.parts)))
        if len(states) > 1:
            raise refusal(f"the slaves' environments or managers differ in their state: {ask}")
        return [{**fields[0], "addr": (fields[0]["addr"][0], 0)} for _ in range(slaves)]

    def make(self) -> MultiEnvironment:
        """The multi-environment, made as it was.

        Raises:
            LoadError, Exception: It cannot be made.
        """
        setup = self.setup
        self._check_script()
        cls = load_subclass("the class", setup["class"], MultiEnvironment)
        args, kwargs = setup["made_with"]
        menv: MultiEnvironment = cls(*args, **loaded_makers(kwargs))
        if menv._recording is None:
            menv._record(Record(**{**setup["record"], "folder": self._file.path.parent}))
        step, recorded = self._manifest.step, setup["recorded"]
        menv._recording.take_up(self._file, step, recorded, self._branches)
        menv.calls = setup["calls"]
        menv._env.seed = setup["seed"]
        pool = menv._slaves
        pool.ordering.seed, pool.ordering.seed_drawn = setup["seed"], setup["seed_drawn"]
        pool.policy, pool.agent_classes = RestartPolicy(*setup["policy"]), setup["agent_classes"]
        self._menv = menv
        return menv

    def _check_script(self) -> None:
        """Check that classes of the script can be found, if there are any."""
        script, here = self._manifest.script, MainScript.of_this_process()
        if script is None or (here is not None and here.file == script[0]):
            return
        names = [self.setup["class"], *self.setup["classes"]]
        names += [each[name] for each in self.setup["slaves"] for name in ("env_cls", "mgr_cls")]
        if any(str(name).startswith(f"{MAIN}:") for name in names):
            raise refusal(
                f"the simulation has classes of the script {script[0]}: resume it in that script, "
                "or with creamas-supervisor resume"
            )

    async def fill(self, changed_code: bool, place: str | Sequence[str] | None = None) -> None:
        """Start the slaves, and have everything in its place again.

        Args:
            changed_code, place: As of `resume`, which has the errors, too.
        """
        menv, manifest = self._menv, self._manifest
        assert menv is not None
        await menv._start_slaves(self._orders(menv, place))
        network, slaves = menv._env.network, menv._slaves.members
        urls = [slave.base_url for slave in slaves]
        args = (str(self._folder), urls, network.base_url)

        async def restore(slave: Slave) -> None:
            try:
                slave.agents = await network.call_agent(slave.address, "_restore_part", args, {})
            except AgentError as error:
                raise refusal(f"{self._folder}: {error.message}") from error
            if slave.journal is not None:
                slave.journal.note_checkpoint(*args)

        await at_once(restore, slaves)
        menv._checkpointed = slaves
        codec = kept_state.state_codec(menv._env, moves(manifest, urls, network.base_url))
        frames = artifact_frames(self._folder, manifest)
        menv._artifacts += [codec.from_frame(frame)["artifact"] for frame in frames]
        state = codec.from_frame(self._master_frame(STATE))
        menv.age = menv._resumed_age = state["age"]
        menv._steps.count, menv._managers.spawned = state["steps"], state["spawned"]
        menv._managers.classes.update(self.setup["classes"])
        if len(slaves) == len(state["agents"]):
            for slave, agents in zip(slaves, state["agents"], strict=True):
                slave.agents = agents
        await kept_state.restore_environment(menv._env, state["environment"])
        await kept_state.set_own_state(menv, state["state"], "the multi-environment")
        if state["host_manager"]:
            await menv.set_host_managers()
        if not changed_code:
            self._check_code(menv)

    def _orders(
        self, menv: MultiEnvironment, place: str | Sequence[str] | None
    ) -> list[ActorOrder]:
        orders: list[ActorOrder] = []
        places = check_places_to_run(place, len(self._slaves), menv._slaves.machines.default)
        for (env_cls, mgr_cls, args), group in groupby(
            self._slaves, key=lambda each: (each["env_cls"], each["mgr_cls"], each["args"])
        ):
            alike = list(group)
            addrs = [each["addr"] for each in alike]
            kwargs = [loaded_makers(each["kwargs"]) for each in alike]
            wishes = places[len(orders) : len(orders) + len(alike)]
            orders += menv._slaves.orders(addrs, env_cls, mgr_cls, kwargs, args, wishes)
        return orders

    def _check_code(self, menv: MultiEnvironment) -> None:
        """Check that the user's code is what it was.

        Raises:
            CheckpointError: It is not; it names the files.
        """
        versions = menv._slaves.ordering.versions
        now = set() if versions is None else set(versions.digests().values())
        changed = []
        for path, digest in self._manifest.code.items():
            if digest not in now and _digest_of(path) != digest:
                changed.append(path)
        if changed:
            raise refusal(
                f"{', '.join(changed)} changed since the checkpoint, or cannot be found: undo "
                "that, or go on with the new code by changed_code=True"
            )

    async def go_on(self, parameters: Mapping[str, Any] | None = None) -> None:
        """Remove what the record has of later steps, and record again.

        Args:
            parameters: Further ones of a run that branches off.

        Raises:
            RecordError: The record cannot be written.
        """
        assert self._menv is not None
        step, file = self._manifest.step, self._file
        columns: dict[str, Any] = {"ended": None}
        details: dict[str, Any] = {"step": step, "slaves": len(self._slaves)}
        recording = self._menv._recording
        if parameters is None:
            await recording.go_on(columns, "resumed", details)
            later = [each for each in self._checkpoints.steps() if each > step]
            await trio.to_thread.run_sync(self._checkpoints.drop, later)
        else:
            columns |= file.branched(parameters)
            details["from"] = self._checkpoints.folder.stem
            await recording.go_on(columns, "branched", details)

    async def give_up(self) -> None:
        """Close what there is of it, and leave the record as it was."""
        if self._menv is None:
            self._file.close()
        else:
            with suppress(CreamasError, AgentErrors):  # another error is under way
                await self._menv.close(as_coro=True)
        if self._branches:
            self._file.path.unlink(missing_ok=True)


async def _at_home(resumed: Callable[[], Awaitable[MultiEnvironment]]) -> MultiEnvironment:
    """Resume on the loop where the multi-environment will live, from whichever loop."""
    loop = current_loop() or background_loop()
    return await (resumed() if loop.is_current() else loop.call(resumed))


async def _resume(
    place: Path,
    parameters: dict[str, Any] | None,
    slaves: int | None,
    step: int | None,
    changed_code: bool,
    nodes: Nodes | None = None,
    where: str | Sequence[str] | None = None,
) -> MultiEnvironment:
    """As `resume`; with ``parameters``, as `branch`."""
    branches = parameters is not None
    path = find_run(place)
    resumption = await Resumption.open(path, step, slaves, branches)
    try:
        menv = resumption.make()
        if nodes is not None:  # a class may have its own
            menv._slaves.machines.nodes = nodes
        await resumption.fill(changed_code, where)
        await resumption.go_on(parameters)
    except BaseException:
        with trio.CancelScope(shield=True):
            await resumption.give_up()
        raise
    return menv


def _digest_of(path: str) -> str:
    """The SHA-256 of a file, empty if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
