"""A slave's part of a checkpoint: written by the slave, and read by those that take it up."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from creamas_sc.checkpoints.files import (
    MANIFEST,
    MASTER,
    Manifest,
    PartFile,
    read_frames,
    write_file,
)
from creamas_sc.core import kept_state
from creamas_sc.errors import CheckpointError
from creamas_sc.rpc.rounds.order import Order, sort_key
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.wire.frames import Frame

# Frames of a slave's file before those of its agents.
ENVIRONMENT, GENERATORS, AGENTS = range(3)
# Frames of the master's file before those of its artifacts.
SETUP, STATE, ARTIFACTS = range(3)
MANAGER: Final = "0"  # what its address ends with

T = TypeVar("T")

# Which file, and which agent of it.
Source = tuple[int, int]


async def write_part(env: Any, path: str) -> dict[str, Any]:
    """Write the file of a slave; what describes it.

    Raises:
        CheckpointError: Something cannot be kept, or its machine lacks the folder.
        OSError: The file cannot be written.
    """
    await in_thread(_check_shared, Path(path).parent / MASTER)
    codec = kept_state.state_codec(env)
    whose = f"the environment {class_name(type(env))}"
    of_process = {"generators": kept_state.keep_generators()}
    frames = [
        kept_state.encoded(codec, await kept_state.environment_state(env), whose),
        kept_state.encoded(codec, of_process, "the process"),
    ]
    frames += kept_state.keep_agents(env, codec)
    numbers = [agent.number for agent in env.get_agents(addr=False)]
    part = await write_frames(Path(path), frames, env.base_url, numbers)
    return asdict(part)


def _check_shared(file: Path) -> None:
    """Check that a file that the master has written is here, too.

    Raises:
        CheckpointError: The folder is not the same on this machine.
    """
    if not file.exists():
        raise CheckpointError(
            f"{file.parent} on {platform.node()} is not the master's folder: record into one that "
            "all machines of the simulation share"
        )


async def write_frames(
    path: Path, frames: Sequence[bytes], url: str, numbers: Sequence[Order] = ()
) -> PartFile:
    """Write a file of a checkpoint, in a thread."""
    digest = await in_thread(write_file, path, frames)
    return PartFile(path.name, list(map(len, frames)), digest, url, list(numbers))


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function that reads or writes; a disk that hangs does not hold up a cancellation."""
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


def assign(numbers: Sequence[Sequence[Order]], slaves: int) -> list[list[Source]]:
    """Which agents each slave takes up, in the order in which they get their addresses.

    For as many slaves as there were, each takes up those that one had; otherwise they are dealt
    out by their numbers, each with the agents that it made, which it may hold as objects.

    Args:
        numbers: Of the agents in each slave at the checkpoint.
    """
    if slaves == len(numbers):
        return [[(at, agent) for agent in range(len(each))] for at, each in enumerate(numbers)]
    sources = [(at, agent) for at, each in enumerate(numbers) for agent in range(len(each))]
    sources.sort(key=lambda source: sort_key(numbers[source[0]][source[1]]))
    assigned: list[list[Source]] = [[] for _ in range(slaves)]
    slave_of: dict[tuple[int, ...], list[Source]] = {}
    for at, agent in sources:
        maker = _first_maker(numbers[at][agent])
        slave_of.setdefault(maker, assigned[len(slave_of) % slaves]).append((at, agent))
    return assigned


def _first_maker(number: Order) -> tuple[int, ...]:
    """The number of the agent that made the one with this number, or that agent's maker ..."""
    key = sort_key(number)
    return key[: 3 if key[0] == sys.maxsize else 1]


def moves(manifest: Manifest, urls: Sequence[str], master: str) -> dict[str, str]:
    """Address at the checkpoint -> address now, of all agents and managers.

    Args:
        urls: Base URLs of the slaves that take them up.
        master: That of the master.
    """
    parts = manifest.slaves
    found = {f"{manifest.master.url}{MANAGER}": f"{master}{MANAGER}"}
    for at, part in enumerate(parts):
        found[f"{part.url}{MANAGER}"] = f"{urls[at % len(urls)]}{MANAGER}"
    for url, sources in zip(urls, assign([p.numbers for p in parts], len(urls)), strict=True):
        for place, (at, agent) in enumerate(sources, 1):
            found[f"{parts[at].url}{agent + 1}"] = f"{url}{place}"
    return found


async def restore_part(env: Any, place: str, urls: Sequence[str], master: str) -> int:
    """Take up a slave's part of a checkpoint; how many agents that are.

    Args:
        place: The checkpoint's folder.
        urls, master: As of `moves`; one is this slave's.

    Raises:
        CheckpointError: It cannot be taken up; it says what, and why.
        OSError: It cannot be read.
    """
    folder = Path(place)
    await in_thread(_check_shared, folder / MANIFEST)
    manifest = Manifest.decode((folder / MANIFEST).read_bytes())
    parts, index = manifest.slaves, urls.index(env.base_url)
    sources = assign([part.numbers for part in parts], len(urls))[index]
    codec = kept_state.state_codec(env, moves(manifest, urls, master))
    same = len(urls) == len(parts)
    if not same:  # agents that it makes must not have the numbers of those that others made
        env._random = env._random._replace(environment=1 + len(parts) + index)
    frames = await in_thread(_agent_frames, folder, parts, sources)
    numbers = [parts[at].numbers[agent] for at, agent in sources]
    kept_state.restore_agents(env, codec, numbers, frames)
    own = parts[index if same else 0]
    first, second = read_frames(folder / own.name, own.sizes, (ENVIRONMENT, GENERATORS))
    await kept_state.restore_environment(env, codec.from_frame(first))
    if same:
        kept_state.restore_generators(codec.from_frame(second)["generators"])
    names = {getattr(agent, "name", "") for agent in env.get_agents(addr=False)}
    for frame in artifact_frames(folder, manifest):
        if codec.moved(bytes(frame.meta).decode()) in names:
            env._artifacts.append(codec.from_frame(frame)["artifact"])
    return len(sources)


def artifact_frames(folder: Path, manifest: Manifest) -> Iterator[Frame]:
    """The frames of the master's artifacts, labelled with their creators."""
    sizes = manifest.master.sizes
    return read_frames(folder / manifest.master.name, sizes, range(ARTIFACTS, len(sizes)))


def _agent_frames(
    folder: Path, parts: Sequence[PartFile], sources: Sequence[Source]
) -> list[Frame]:
    """The frames of agents, in their order."""
    found: dict[Source, Frame] = {}
    for at, part in enumerate(parts):
        wanted = sorted(agent for file, agent in sources if file == at)
        frames = read_frames(folder / part.name, part.sizes, [AGENTS + each for each in wanted])
        found.update(zip([(at, agent) for agent in wanted], frames, strict=True))
    return [found[source] for source in sources]
