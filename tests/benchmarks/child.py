"""A script with slaves, seen from outside: ``python -m tests.benchmarks.child SYSTEM SLAVES T0``.

Prints, as one line of JSON, seconds from T0 (of `time.monotonic`) until its slaves have answered,
and from its further marks until then; ends when its input does.
"""

from __future__ import annotations

import sys
import time

from tests.benchmarks.systems import make

STARTED = time.monotonic()
if sys.argv[1:2] in (["trio"], ["sync"]):
    import creamas_sc

    creamas_sc.prestart()


def main() -> None:
    """Start, tell, wait, stop."""
    name, slaves, began = sys.argv[1:]
    marks = {"exec": float(began), "main": STARTED}
    system = make(name, int(slaves))

    async def ready() -> None:
        await system.start()
        now = time.monotonic()
        seconds = {mark: now - at for mark, at in (marks | system.marks).items()}
        print(str(seconds).replace("'", '"'), flush=True)
        sys.stdin.read()
        await system.stop()

    system.setup()
    system.run(ready)


if __name__ == "__main__":
    main()
