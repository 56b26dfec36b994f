"""Writes the checkpoints of a multi-environment, between two of its steps.

    master                                  slaves
    ------                                  ------
    makes the folder; its own file
    asks all slaves               -->       write_part: encode, write, sync, rename
    the manifest, synced: that    <--       sizes, SHA-256, the agents' numbers
      is the commit
    removes what is too old

What fails leaves the checkpoints before as they were.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from creamas_sc.checkpoints.files import MASTER, Checkpoints, Manifest, PartFile
from creamas_sc.core import kept_state
from creamas_sc.errors import AgentError, CheckpointError, CreamasError, SlaveLost
from creamas_sc.foreign import printable
from creamas_sc.mp.checkpoint_parts import in_thread, write_frames
from creamas_sc.restarts.slave import Slave
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.installation import is_users
from creamas_sc.runtime.main_script import MainScript
from creamas_sc.supervisor_client.spec import fields_of, named_makers, pack

if TYPE_CHECKING:
    from creamas_sc.mp.multienvironment import MultiEnvironment

log = logging.getLogger(__name__)

# What `MultiEnvironment` itself has; other attributes are the user's.
OWN: Final = frozenset(
    {"_env", "_name", "_logger", "_artifacts", "_slaves", "_managers", "_steps", "_closer"}
    | {"_age", "_loop", "_recording", "_made_with", "_resumed_age"}
    | {"_age_is_ahead", "_checkpointed"}
)
# Arguments that are not kept: what they were is there in another way, or cannot travel.
_NOT_KEPT: Final = ("record", "logger", "nodes")


async def write_checkpoint(
    menv: MultiEnvironment,
    run_file: Path,
    run: str,
    step: int,
    recorded: Mapping[str, Any],
    kept: int,
) -> None:
    """Write a checkpoint, unless a slave that is in the last one is lost for good.

    So a run that has lost a slave can go on from where it was whole.

    Args:
        run_file: Of the record.
        run: Its id.
        step: After which it is.
        recorded: What the recording keeps of itself.
        kept: How many checkpoints are kept.

    Raises:
        CheckpointError: Something cannot be kept, or a slave cannot write, or died; the next step
            says so, too.
        OSError: A file cannot be written.
    """
    if lost := menv._slaves.lost(menv._checkpointed):
        log.warning(
            "there is no checkpoint of step %d: %s", step, printable(lost[0].describe_end())
        )
        return
    files = Checkpoints(run_file)
    network, slaves = menv._env.network, menv._slaves.members
    here = [slave for slave in slaves if not slave.reported]
    try:
        place = await in_thread(files.begin, step)
        frames = await _master_frames(menv, step, recorded)
        master = await write_frames(place / MASTER, frames, network.base_url)

        async def write_part(slave: Slave) -> PartFile:
            path = str(place / f"slave-{slaves.index(slave)}")
            answer = await network.call_agent(slave.address, "_write_part", (path,), {})
            return PartFile.of(answer)

        parts = await at_once(write_part, slaves)
        manifest = Manifest(step, run, master, parts, **_surroundings(menv))
        await in_thread(files.commit, manifest, kept)
    except AgentError as error:  # a slave says so
        raise CheckpointError(error.message) from error
    except SlaveLost as error:
        for slave in here:  # the step that needs it must not go on without it in silence
            slave.reported = False
        raise CheckpointError(str(error)) from error
    menv._checkpointed = slaves
    urls = [slave.base_url for slave in slaves]
    for slave in slaves:
        if slave.journal is not None:
            slave.journal.note_checkpoint(str(place), urls, network.base_url)


def _surroundings(menv: MultiEnvironment) -> dict[str, Any]:
    """The user's code, and where it was found."""
    versions, script = menv._slaves.ordering.versions, MainScript.of_this_process()
    folders = dict.fromkeys(map(os.path.abspath, sys.path))
    return {
        "code": {} if versions is None else versions.digests(),
        "script": None if script is None else tuple(script),
        "path": [each for each in folders if os.path.isdir(each) and is_users(each + "/")],
        "cwd": os.getcwd(),
    }


async def _master_frames(
    menv: MultiEnvironment, step: int, recorded: Mapping[str, Any]
) -> list[bytes]:
    """The frames of the master's file: how it was made, its state, and each artifact."""
    setup = {
        "class": class_name(type(menv)),
        "made_with": _arguments(menv),
        "seed": menv._env.seed,
        "seed_drawn": menv._slaves.ordering.seed_drawn,
        "calls": menv._env.calls,
        "policy": astuple(menv._slaves.policy),
        "slaves": [_slave_fields(slave) for slave in menv._slaves.members],
        "classes": sorted(menv._managers.classes),
        "agent_classes": list(menv._slaves.agent_classes),
        "record": menv._recording.record.kept(),
        "recorded": dict(recorded),
        "host": menv._slaves.observer.kept(step),
    }
    env = menv._env
    codec = kept_state.state_codec(env)
    state: dict[str, Any] = {
        "environment": await kept_state.environment_state(env),
        "state": await kept_state.own_state(menv, OWN, "the multi-environment"),
        "steps": menv._steps.count,
        "age": menv._age - (step == 0 and menv._age_is_ahead),
        "spawned": menv._managers.spawned,
        "agents": [slave.agents for slave in menv._slaves.members],
        "host_manager": menv._slaves.have_host_manager,
    }
    kind = class_name(type(menv))
    frames = [_plain_frame(setup, kind), kept_state.encoded(codec, state, kind)]
    for artifact in menv._artifacts:
        label = artifact.creator[:1000]
        frames.append(kept_state.encoded(codec, {"artifact": artifact}, "an artifact", label))
    return frames


def _plain_frame(setup: Mapping[str, Any], kind: str) -> bytes:
    """A frame that can be decoded before there is an environment."""
    try:
        return pack(setup, "setup")
    except CreamasError as error:
        raise CheckpointError(f"how {kind} was made cannot be kept: {error}") from None


def _arguments(menv: MultiEnvironment) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What its class was called with."""
    args, kwargs = menv._made_with or ((), {})
    kwargs = {name: value for name, value in kwargs.items() if name not in _NOT_KEPT}
    return args, named_makers(kwargs)


def _slave_fields(slave: Slave) -> dict[str, Any]:
    """What a slave was started with."""
    fields = fields_of(slave.order["spec"])
    return {name: fields[name] for name in ("addr", "env_cls", "mgr_cls", "args", "kwargs")}
