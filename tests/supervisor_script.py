"""A script with actors: ``python supervisor_script.py ENTRY...``. Prints its pids, then waits.

It ends when its supervisor does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import trio

from tests import supervisor_tree as trees


async def main(entries: list[str]) -> None:
    """Start one actor an entry, named after it."""
    async with trees.open_supervisor(seconds=60) as supervisor:
        told = await supervisor.start(*(trees.order(entry, entry) for entry in entries))
        pids = trees.family(supervisor.keeper.pid)
        roles = {name: pids[name] for name in ("keeper", "zygote", "supervisor")}
        actors = {actor["slot"]: actor["pid"] for actor in told}
        forked = [int(actor["info"]) for actor in told if actor["info"].isdigit()]
        print(json.dumps({**roles, **actors, "script": os.getpid(), "forked": forked}))
        await supervisor.connection.closed.wait()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
