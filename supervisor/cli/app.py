"""The commands, in the order and groups of ``--help``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any

from cyclopts import App, Group, Parameter

from creamas_sc.runtime.installation import installed_version
from supervisor.cli import (
    completion,
    create,
    daemon_commands,
    dump,
    follow,
    logs,
    nodes,
    page,
    result_commands,
    service,
    simulation_commands,
    step_commands,
    sweep,
    top,
    verify,
)
from supervisor.cli.exits import EXIT_CODES
from supervisor.cli.settings import SETTINGS_HELP, config_file

INTRODUCTION = """\
Run simulations in a daemon, apart from the scripts and terminals that use it.

A first tour:

    creamas-supervisor start
    creamas-supervisor create novelty --slaves 2 --agents painters.py:Painter=24
    creamas-supervisor step novelty 1000
    creamas-supervisor attach novelty
    creamas-supervisor stop

Each command has its own --help, with examples."""

VERBS: dict[str, tuple[Callable[..., int], ...]] = {
    "Daemon": (
        daemon_commands.start,
        daemon_commands.status,
        daemon_commands.stop,
        daemon_commands.run,
        service.service,
        completion.completion,
    ),
    "Other machines": (nodes.node, nodes.nodes),
    "Simulations": (
        simulation_commands.ls,
        create.create,
        simulation_commands.inspect,
        follow.attach,
        top.top,
        step_commands.step,
        step_commands.pause,
        step_commands.resume,
        step_commands.wait,
        logs.logs,
        dump.dump,
        simulation_commands.close,
        simulation_commands.kill,
        verify.verify,
    ),
    "Results": (sweep.sweep, page.page, page.report, result_commands.export, result_commands.plot),
}


# They end what may have run for days, so a suggestion names another one that is as near.
_ENDING = (daemon_commands.stop, simulation_commands.close, simulation_commands.kill)
# How alike a word and a command must be, from 0 to 1.
_ALIKE = 0.6


def unknown_command(word: str) -> str:
    """Return what to say about a word that is not a command."""
    near = []
    for verb in (verb for verbs in VERBS.values() for verb in verbs):
        alike = SequenceMatcher(None, word, verb.__name__).ratio()
        near.append((alike, verb not in _ENDING, verb.__name__))
    alike, _, name = max(near)
    suggestion = f' Did you mean "{name}"?' if alike >= _ALIKE else ""
    return f'Unknown command "{word}".{suggestion}'


def _usage(verb: Callable[..., int]) -> str:
    """Return a command's usage line, with its arguments by name."""
    words = ["Usage: creamas-supervisor", verb.__name__]
    for name, parameter in inspect.signature(verb).parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            word = name.upper()
            words.append(word if parameter.default is parameter.empty else f"[{word}]")
    return " ".join([*words, "[OPTIONS]"])


def build() -> App:
    """Build the application; its errors and results come back to the caller."""
    groups: dict[str, Any] = {name: Group.create_ordered(name) for name in (*VERBS, "Other")}
    app = App(
        name="creamas-supervisor",
        help=INTRODUCTION,
        help_format="plaintext",
        help_epilogue=f"{EXIT_CODES}\n\n{SETTINGS_HELP.format(file=config_file())}",
        version=installed_version,
        usage="Usage: creamas-supervisor COMMAND [ARGUMENTS] [OPTIONS]",
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative=(), show_default=False),
        group_parameters=Group("Options"),
    )
    app["--help"].group = app["--version"].group = groups["Other"]
    for group, verbs in VERBS.items():
        for place, verb in enumerate(verbs):
            app.command(
                verb,
                group=groups[group],
                sort_key=place,
                usage=_usage(verb),
                help_epilogue=EXIT_CODES,
            )
    return app
