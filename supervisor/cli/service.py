"""The command service: has systemd run the daemon."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from creamas_sc.runtime.paths import DEFAULT_DAEMON
from supervisor.cli import output
from supervisor.cli.daemon_connection import chosen_daemon
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.params import Daemon, Json
from supervisor.cli.settings import CONFIG_VARIABLE, Settings
from supervisor.timeouts import CLOSE_SECONDS

NAME = "creamas-supervisor"
# Beyond what the daemon takes to close all simulations, before systemd kills it.
STOP_MARGIN_SECONDS = 15
WATCHDOG_SECONDS = 60
# What systemd makes at its start, and where it notes who lingers.
BOOTED = Path("/run/systemd/system")
LINGERING = Path("/var/lib/systemd/linger")

UNIT = """\
[Unit]
Description=creamas simulations, of the daemon {daemon!r}

[Service]
# The daemon says when clients can connect, when it ends, and that it is alive.
Type=notify
WatchdogSec={watchdog}
ExecStart={command}
{environment}# A stop is a SIGTERM to the daemon alone, which closes all simulations in order.
KillMode=mixed
TimeoutStopSec={stop}
# After a crash it runs again, without its simulations; after `{name} stop` it does not.
Restart=on-failure
RestartSec=1
# A slave for which there is no memory is the simulation's loss, not the daemon's end.
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def service(*, print: bool = False, daemon: Daemon = None, json: Json = False) -> int:
    """Have systemd run the daemon, from boot on.

    The command writes a unit of the user's systemd, and says what to type to
    start it, to have it run on after a logout, and to undo this. It starts
    nothing itself.

    For example:

        creamas-supervisor service
        creamas-supervisor service --daemon experiments
        creamas-supervisor service --print

    Args:
        print: Only print the unit, which also works where there is no systemd.
    """
    settings, name = chosen_daemon(daemon)
    text = unit(name)
    if print:
        output.emit({"unit": text}, json, text.splitlines)
        return Exit.DONE
    if not BOOTED.is_dir():
        raise Failure(
            f"systemd does not run on this machine, so no unit was written: {_without()}; "
            f"`{NAME} service --print` prints the unit for a machine with systemd"
        )
    path = _unit_path(name)
    written = _write(path, text)
    data = {"path": str(path), "written": written, "unit": text}
    output.emit(data, json, lambda: _explanation(path, written, settings))
    return Exit.DONE


def _without() -> str:
    return (
        f"`{NAME} start` starts the daemon, which runs on after a logout unless the machine ends "
        f"users' processes then, and a line `@reboot {_program()} start` of cron does so at boot"
    )


def unit(daemon: str) -> str:
    """The text of the unit."""
    variables = {
        key: value
        for key, value in os.environ.items()
        if key == CONFIG_VARIABLE or (key.startswith("CREAMAS_") and _is_setting(key) and value)
    }
    lines = [f"Environment={_quoted(f'{key}={value}')}\n" for key, value in variables.items()]
    # Of a command, variables are replaced too.
    command = " ".join(_quoted(word).replace("$", "$$") for word in _command())
    command += f" run --daemon {daemon}"
    return UNIT.format(
        daemon=daemon, watchdog=WATCHDOG_SECONDS, command=command, environment="".join(lines),
        stop=round(CLOSE_SECONDS) + STOP_MARGIN_SECONDS, name=NAME,
    )  # fmt: skip


def _is_setting(variable: str) -> bool:
    """Whether it is a setting of the user's, other than the daemon's name, which is an option."""
    name = variable.removeprefix("CREAMAS_").lower()
    return name != "daemon" and name in Settings.__annotations__


def _command() -> list[str]:
    program = _program()
    return [program] if os.path.isabs(program) else [sys.executable, "-m", "supervisor.cli"]


def _program() -> str:
    """The program of this Python; its bare name if it has none."""
    program = Path(sys.executable).with_name(NAME)
    return str(program) if program.exists() else NAME


def _quoted(word: str) -> str:
    """A word as systemd reads it, which replaces %-specifiers: see systemd.syntax(7)."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word}"' if not word or any(char in word for char in " \t;'\"\\") else word


def _unit_path(daemon: str) -> Path:
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    suffix = "" if daemon == DEFAULT_DAEMON else f"-{daemon}"
    return Path(config).expanduser() / "systemd" / "user" / f"{NAME}{suffix}.service"


def _write(path: Path, text: str) -> bool:
    """Write the unit; whether that changed anything.

    Raises:
        Failure: It cannot be written.
    """
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text() == text:
            return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = path.with_name(f"{path.name}.before")
            path.replace(kept)
            output.note(f"what was in {path} is in {kept.name} now")
        path.write_text(text)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error
    return True


def _explanation(path: Path, written: bool, settings: Settings) -> Iterator[str]:
    user, name = getpass.getuser(), path.stem
    yield f"{path} {'is written' if written else 'was there already'}."
    yield ""
    yield "Start the daemon now, and at each login; if it runs already, stop it first:"
    yield "    systemctl --user daemon-reload"
    yield f"    systemctl --user enable --now {name}"
    yield ""
    if (LINGERING / user).exists():
        yield f"{user} lingers already: it starts at boot, and runs on after a logout."
    else:
        yield "Have it start at boot, and run on after a logout:"
        yield f"    loginctl enable-linger {user}"
    yield ""
    yield "Look at it, and undo all this:"
    yield f"    systemctl --user status {name}"
    yield f"    journalctl --user -u {name}"
    yield f"    systemctl --user disable --now {name} && rm {path}"
    yield ""
    yield f"Its log, and those of simulations, are also in {settings.logs()}."
    yield f"{NAME} stop ends it until the next boot or `systemctl --user start {name}`."
    if not shutil.which("systemctl"):
        yield "systemctl is not on the PATH here: it is on that of a login on the machine itself."
    elif not _user_manager():
        yield "The user's systemd cannot be reached from here, as after su or sudo: log in as"
        yield f"{user} itself (machinectl shell {user}@, or ssh), and type the above there."


def _user_manager() -> bool:
    """Whether systemctl --user finds the user's systemd."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    return bool(folder) and Path(folder or "", "systemd", "private").exists()
