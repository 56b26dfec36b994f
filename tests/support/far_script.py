"""A script whose slaves may be on other machines: ``python -m tests.support.far_script SETTINGS``.

It takes a line a step, and prints its outcome as JSON: see `tests.support.far_society`, which runs
it. Each slave holds a lock while it lives, so that two of the same place are seen, however briefly
both are there.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose
from creamas_sc.client import connect
from creamas_sc.errors import SlaveLost
from creamas_sc.mp import EnvManager, RestartPolicy

__all__ = ["OVERLAPS", "Locked", "Settings", "right"]

OVERLAPS = "overlaps.txt"
BEGINNINGS = "beginnings.txt"


@dataclass(frozen=True)
class Settings:
    """What the script is to do.

    Attributes:
        folder: Gets the locks, and lines about slaves that begin.
        host, port: Where it listens, for nodes at that port.
        key_file: Of the nodes.
        nodes: How many are waited for; with 0, all slaves are on this machine.
        agents: In each slave.
        scheduler: Address of a dask cluster whose workers have the nodes; its files of TLS are in
            the folder, as `tests.support.far_cluster` makes them.
        daemon: Name of one that is to have the simulation.
    """

    folder: str
    host: str
    port: int
    key_file: str
    nodes: int
    slaves: int
    agents: int = 2
    lease: float = 10.0
    restart: str = "permanent"
    calls: str = "rounds"
    seed: int = 1
    scheduler: str = ""
    daemon: str = ""


class Locked(Environment):
    """Notes when it begins, and whether another one of its place is still there."""

    def __init__(self, *args: Any, folder: str, number: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        about = f"{number} {os.getpid()} {socket.gethostname()} {time.time():.3f}\n"
        self._lock = open(Path(folder) / f"slave-{number}.lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _append(Path(folder) / OVERLAPS, about)
        _append(Path(folder) / BEGINNINGS, about)


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line)


class Asker(CreativeAgent):
    """Asks others in its acts, and answers with its index."""

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment)
        self.index = index

    @expose
    async def act(self, step: int, addrs: list[str]) -> int:
        answers = [await self.ask(addr, step) for addr in addrs if addr != self.addr]
        return sum(answers)

    async def ask(self, addr: str, step: int) -> int:
        """The answer of one of them."""
        other = await self.connect(addr)
        answer: int = await other.answer(step)
        return answer

    @expose
    def answer(self, step: int) -> int:
        return step * 1000 + self.index

    @expose
    def where(self) -> tuple[int, str]:
        return os.getpid(), socket.gethostname()


def right(step: int, agents: int) -> list[int]:
    """What a step of so many agents has to return."""
    answers = [step * 1000 + index for index in range(agents)]
    return [sum(answers) - each for each in answers]


async def main(settings: Settings) -> None:
    """Start slaves and agents; take a step for each line; close when there is none left."""
    host, slaves = settings.host, settings.slaves
    kwargs = [{"folder": settings.folder, "number": each} for each in range(slaves)]
    options: dict[str, Any] = {
        "seed": settings.seed,
        "restart": RestartPolicy(settings.restart, restarts=20, seconds=60.0),
        "calls": settings.calls,
        "nodes": _nodes(settings),
    }
    began = time.monotonic()
    if settings.daemon:
        async with connect(settings.daemon) as client:
            await client.create(
                "far",
                addr=(host, 0),
                slave_addrs=slaves,
                slave_env_cls=Locked,
                slave_kwargs=kwargs,
                place="nodes",
                **options,
            )
            async with client.attach("far") as simulation:
                await _serve(settings, simulation, await simulation.get_addrs(), began)
                await simulation.close()
    else:
        async with MultiEnvironment((host, 0), Environment, **options) as menv:
            await menv.spawn_slaves([(host, 0)] * slaves, Locked, EnvManager, kwargs)
            await _serve(settings, menv, menv.addrs, began)
    _say(closed=True)


async def _serve(settings: Settings, menv: Any, slaves: Sequence[str], began: float) -> None:
    started = time.monotonic() - began
    addrs = []
    for number in range(settings.slaves * settings.agents):
        slave = slaves[number % settings.slaves]
        spawned = await menv.spawn(Asker, number, addr=slave)
        addrs.append(spawned[1])
    _say(ready=slaves, started=started)
    step = 0
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        if line == "where\n":
            _say(where=await menv.gather("where"))
        elif line == "nodes\n":
            known = menv.get_nodes() if settings.daemon else menv.get_nodes(as_coro=True)
            _say(nodes=[each["host"] for each in await known])
        else:
            step += 1
            _say(**await _step(menv, step, addrs))


def _nodes(settings: Settings) -> Any:
    if not settings.nodes:
        return None
    from creamas_sc.nodes import Nodes

    listen = settings.host, settings.port
    if settings.scheduler:
        from creamas_sc.nodes.dask_nodes import DaskNodes
        from tests.support.far_cluster import client

        cluster = client(settings.scheduler, Path(settings.folder))
        nodes: Nodes = DaskNodes(cluster, listen, settings.nodes, 30.0)
    else:
        nodes = Nodes(listen, settings.key_file, settings.nodes, 30.0)
    nodes.lease = settings.lease
    return nodes


async def _step(menv: Any, step: int, addrs: list[str]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        results = await menv.trigger_all(step, addrs)
    except SlaveLost as error:
        outcome: dict[str, Any] = {"lost": error.address, "error": str(error)}
    else:
        outcome = {"results": results}
    return {"step": step, "seconds": time.monotonic() - began, **outcome}


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def dump(settings: Settings) -> str:
    """Settings as its argument."""
    return json.dumps(asdict(settings))


if __name__ == "__main__":
    # Slaves load the classes by their module's name, not as the script's.
    from tests.support import far_script

    trio.run(far_script.main, far_script.Settings(**json.loads(sys.argv[1])))
