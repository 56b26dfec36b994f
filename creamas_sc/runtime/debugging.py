"""``breakpoint()`` in processes without a terminal.

There pdb would print its prompt somewhere, read the end of its input, and end the act with BdbQuit.

To debug an agent, let it act in the script's own process, where pdb works::

    env = Environment(("localhost", 0))
    agent = Painter(env)
    run(env.trigger_all())

Or use a debugger that listens for you, such as debugpy or remote-pdb, in slaves::

    PYTHONBREAKPOINT=remote_pdb.set_trace python script.py

While an agent is held in a debugger, its slave does nothing else, and deadlines cannot cancel it.

For coverage of what runs in slaves, coverage.py from 7.10 on needs two lines in its configuration::

    [run]
    patch = subprocess, _exit

Then ``coverage run script.py`` and ``coverage combine``. A slave that is killed reports nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from creamas_sc.errors import CreamasError


def refuse_breakpoints() -> None:
    """Have ``breakpoint()`` say what to do here, unless PYTHONBREAKPOINT names a debugger."""
    sys.breakpointhook = _refuse


def _refuse(*args: Any, **kwargs: Any) -> Any:
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*args, **kwargs)
    raise CreamasError(
        "breakpoint() has no terminal in this process: to debug an agent, let it act in the "
        "script, env = Environment(('localhost', 0)), then Painter(env) and "
        "run(env.trigger_all()); or install a debugger that listens, such as remote-pdb, and set "
        "PYTHONBREAKPOINT=remote_pdb.set_trace"
    )
