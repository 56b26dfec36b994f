"""Where settings come from, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.cli.daemon_connection import chosen_daemon
from supervisor.cli.exits import Failure
from supervisor.cli.settings import Settings, config_file, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def load(file: Path, text: str, **environ: str) -> Settings:
    file.write_text(text)
    return load_settings({"CREAMAS_CONFIG": str(file), **environ})


def refusal(file: Path, text: str, **environ: str) -> str:
    with pytest.raises(Failure) as caught:
        load(file, text, **environ)
    assert caught.value.code == 2
    return str(caught.value)


def test_defaults(file: Path) -> None:
    assert load(file, "") == Settings()
    assert Settings().logs().name in ("creamas", "log", "logs")


def test_the_file(file: Path) -> None:
    loaded = load(file, 'daemon = "lab"\nlog_folder = "/logs"\nclose_timeout = 60\n')
    assert loaded == Settings(daemon="lab", log_folder=Path("/logs"), close_timeout=60.0)
    assert loaded.logs() == Path("/logs")


def test_the_environment_comes_before_the_file(file: Path) -> None:
    loaded = load(
        file,
        'daemon = "lab"\nclose_timeout = 60\nstart_timeout = 1',
        CREAMAS_DAEMON="other",
        CREAMAS_CLOSE_TIMEOUT="2.5",
        CREAMAS_START_TIMEOUT="",
    )
    assert loaded == Settings(daemon="other", close_timeout=2.5, start_timeout=1.0)


def test_flags_come_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('daemon = "lab"')
    monkeypatch.setenv("CREAMAS_CONFIG", str(file))
    assert chosen_daemon(None)[1] == "lab"
    monkeypatch.setenv("CREAMAS_DAEMON", "other")
    assert chosen_daemon(None)[1] == "other"
    assert chosen_daemon("flag")[1] == "flag"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("daemons = 1", "daemons"),
        ('daemon = "../key"', "daemon"),
        ("daemon = 5", "daemon"),
        ("log_folder = 5", "log_folder"),
        ('close_timeout = "soon"', "close_timeout"),
        ("close_timeout = -1", "close_timeout"),
        ("close_timeout = inf", "close_timeout"),
        ("close_timeout = nan", "close_timeout"),
        ("close_timeout = true", "close_timeout"),
        ("close_timeout = []", "close_timeout"),
    ],
)
def test_a_bad_file_is_named_with_the_key(file: Path, text: str, key: str) -> None:
    loaded = refusal(file, text)
    assert str(file) in loaded
    assert key in loaded


@pytest.mark.parametrize("text", ["daemon", "= 1", "daemon = \xff"])
def test_a_file_that_is_no_toml(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match=r"config.toml is not a TOML file: "):
        load_settings({"CREAMAS_CONFIG": str(file)})


def test_a_bad_variable_is_named(file: Path) -> None:
    for key in ("CLOSE_TIMEOUT", "DAEMON"):
        loaded = refusal(file, "", **{f"CREAMAS_{key}": "not this"})
        assert f"[{key.lower()}]" in loaded
        assert "the CREAMAS_ variables" in loaded


def test_the_file_need_not_be_there_unless_it_was_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(file.parent))
    assert config_file({}) == file.parent / "creamas" / "config.toml"
    assert load_settings({}) == Settings()
    with pytest.raises(Failure, match="named by CREAMAS_CONFIG, does not exist"):
        load_settings({"CREAMAS_CONFIG": str(file)})
    with pytest.raises(Failure, match="cannot be read"):
        load_settings({"CREAMAS_CONFIG": str(file.parent)})
