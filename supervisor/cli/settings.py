"""The user's settings: the environment (``CREAMAS_*``), a TOML file, defaults; flags come first."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from creamas_sc.errors import BadValue
from creamas_sc.runtime.paths import check_name
from supervisor.cli.exits import Exit, Failure

__all__ = ["SETTINGS_HELP", "Settings", "config_file", "load_settings"]

CONFIG_VARIABLE = "CREAMAS_CONFIG"

SETTINGS_HELP = """\
Settings are daemon, log_folder and, in seconds, start_timeout, create_timeout,
close_timeout, answer_timeout. They come from flags, else from the environment
(CREAMAS_DAEMON and so on), else from this file (CREAMAS_CONFIG names another):

    {file}"""


@dataclass(frozen=True)
class Settings:
    """What no flag said.

    Attributes:
        daemon: The daemon's name.
        log_folder: Where logs are; None for the system's place for them.
        start_timeout: Seconds until a daemon that was started must be ready.
        create_timeout: Seconds until a simulation must be ready, its agents included.
        close_timeout: Seconds that simulations and slaves get to save and close gracefully.
        answer_timeout: Seconds that the daemon may take to answer what takes it no time.
    """

    daemon: str = "default"
    log_folder: Path | None = None
    start_timeout: float = 15.0
    create_timeout: float = 30.0
    close_timeout: float = 1.0
    answer_timeout: float = 10.0

    def logs(self) -> Path:
        """The folder of logs."""
        if self.log_folder is not None:
            return self.log_folder
        from platformdirs import user_log_path

        return user_log_path("creamas")


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's TOML file, whether it is there or not."""
    chosen = environ.get(CONFIG_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_config_path

    return user_config_path("creamas") / "config.toml"


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this user.

    Raises:
        Failure: A value is bad or a key unknown; the message says where.
    """
    file = config_file(environ)
    chosen = _read(file, bool(environ.get(CONFIG_VARIABLE)))
    unknown = [key for key in chosen if key not in _CHECKS]
    if unknown:
        known = ", ".join(_CHECKS)
        raise Failure(f"{file}: unknown key {unknown[0]!r}; there are {known}", Exit.USAGE)
    told: dict[str, Any] = {
        key: _checked(key, value, f"{file}: {key}") for key, value in chosen.items()
    }
    for key in _CHECKS:
        variable = f"CREAMAS_{key.upper()}"
        if value := environ.get(variable):  # an empty one counts as none
            told[key] = _checked(key, value, variable)
    return Settings(**told)


def _read(file: Path, must_exist: bool) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        if must_exist:
            raise Failure(f"{file}, named by {CONFIG_VARIABLE}, is not there", Exit.USAGE) from None
        return {}
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", Exit.USAGE) from error
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:  # of TOML, or of UTF-8
        raise Failure(f"{file} is no TOML: {error}", Exit.USAGE) from error


def _checked(key: str, value: object, where: str) -> object:
    try:
        return _CHECKS[key](value)
    except (TypeError, ValueError) as error:
        raise Failure(f"{where}: {error}", Exit.USAGE) from error


def _daemon(value: object) -> str:
    try:
        return check_name(value, "daemon")
    except BadValue as error:
        raise ValueError(str(error)) from error


def _folder(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise TypeError(f"expected a folder, not {value!r}")
    return Path(value).expanduser().absolute()


def _seconds(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, (str, float, int)) else math.nan
    except ValueError:
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds < math.inf:
        raise ValueError(f"expected seconds, a number of at least 0, not {value!r}")
    return seconds


_CHECKS: dict[str, Callable[[object], Any]] = {
    field.name: _seconds if field.name.endswith("_timeout") else _daemon
    for field in fields(Settings)
} | {"log_folder": _folder}
