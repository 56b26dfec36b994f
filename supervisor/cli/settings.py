"""The user's settings: first the environment (``CREAMAS_*``), then a TOML file, then defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict

from creamas_sc.runtime.paths import DEFAULT_DAEMON, check_name
from creamas_sc.runtime.validation import MAX_SECONDS
from supervisor.cli.exits import Exit, Failure
from supervisor.cli.params import at_least

CONFIG_VARIABLE = "CREAMAS_CONFIG"

SETTINGS_HELP = """\
Settings: daemon, log_folder and, in seconds, start_timeout, create_timeout,
close_timeout, answer_timeout. Flags come first, then environment variables
(CREAMAS_DAEMON and so on), then this file (CREAMAS_CONFIG names another one):

    {file}"""

_Seconds = Annotated[float, at_least(0, MAX_SECONDS)]


def _check_daemon(_kind: Any, name: str) -> None:
    check_name(name, "daemon")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a user.

    Attributes:
        daemon: The daemon's name.
        log_folder: The folder of logs; None for the system's default.
        start_timeout: Seconds until a new daemon must be ready.
        create_timeout: Seconds until a new simulation must be ready, including its agents.
        close_timeout: Seconds that simulations and slaves have to save and close gracefully.
        answer_timeout: Seconds until the daemon must answer.
    """

    daemon: Annotated[str, Parameter(validator=_check_daemon)] = DEFAULT_DAEMON
    log_folder: Path | None = None
    start_timeout: _Seconds = 15.0
    create_timeout: _Seconds = 30.0
    close_timeout: _Seconds = 1.0
    answer_timeout: _Seconds = 10.0

    def logs(self) -> Path:
        """Return the folder of logs."""
        if self.log_folder is not None:
            return self.log_folder.expanduser().absolute()
        from platformdirs import user_log_path

        try:
            return user_log_path("creamas")
        except RuntimeError as error:  # there is no home folder
            raise Failure(f"{error}: set HOME, or CREAMAS_LOG_FOLDER", Exit.USAGE) from error


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the user's TOML file, which need not exist."""
    if chosen := environ.get(CONFIG_VARIABLE):
        return Path(chosen).expanduser()
    from platformdirs import user_config_path

    try:
        return user_config_path("creamas") / "config.toml"
    except RuntimeError as error:  # there is no home folder
        raise Failure(f"{error}: set HOME, or {CONFIG_VARIABLE}", Exit.USAGE) from error


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Load the settings of this user; an empty value counts as unset.

    Raises:
        Failure: A value is not valid or a key is unknown; the message says where.
    """
    file = config_file(environ)
    names = [field.name for field in fields(Settings)]
    variables = {name: environ.get(f"CREAMAS_{name.upper()}") for name in names}
    values = _read(file, must_exist=bool(environ.get(CONFIG_VARIABLE)))
    sources = {"the CREAMAS_ variables": variables, str(file): values}
    config = [
        Dict({key: value for key, value in found.items() if value not in (None, "")}, source=source)
        for source, found in sources.items()
    ]
    app = App(config=config, exit_on_error=False, print_error=False, result_action="return_value")
    app.default(Settings)
    try:
        settings: Settings = app([])
        return settings
    except CycloptsError as error:
        raise Failure(" ".join(str(error).split()), Exit.USAGE) from error


def _read(file: Path, *, must_exist: bool) -> dict[str, Any]:
    import tomllib

    try:
        found = tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        if must_exist:
            text = f"{file}, named by {CONFIG_VARIABLE}, does not exist"
            raise Failure(text, Exit.USAGE) from None
        return {}
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", Exit.USAGE) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise Failure(f"{file} is not a TOML file: {error}", Exit.USAGE) from error
    for name in ("daemon", "log_folder"):  # cyclopts would take any value for its text
        if not isinstance(found.get(name, ""), str):
            raise Failure(f"{file}: {name} must be a string, not {found[name]!r}", Exit.USAGE)
    return found
