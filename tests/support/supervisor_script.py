"""A script with actors: ``python supervisor_script.py [--fork] ENTRY...``.

It prints its pids, then waits; with ``--fork`` a fork of it, ``heir``, keeps all that it has open.

It ends when its supervisor does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import trio

from tests.support import processes, trees


def fork_heir() -> int:
    """Fork a process that only keeps descriptors open."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


async def main(entries: list[str]) -> None:
    """Start one actor an entry, named after it."""
    fork = "--fork" in entries
    entries = [entry for entry in entries if entry != "--fork"]
    async with trees.open_supervisor(seconds=60) as supervisor:
        started = await supervisor.start(*(trees.order(entry, entry) for entry in entries))
        pids = processes.family(supervisor.keeper.pid)
        roles = {name: pids[name] for name in ("keeper", "zygote", "supervisor")}
        actors = {actor["slot"]: actor["pid"] for actor in started}
        forked = [int(actor["info"]) for actor in started if actor["info"].isdigit()]
        heir = {"heir": fork_heir()} if fork else {}
        others = {"script": os.getpid(), "forked": forked}
        print(json.dumps({**heir, **roles, **actors, **others}), flush=True)
        await supervisor.connection.closed.wait()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
