"""Object loggers, their files, and the logging decorators."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.errors import BadValue
from creamas_sc.logging import ObjectLogger, log_after, log_before
from creamas_sc.rpc.exposed import expose


class Painter:
    """Something with a name, attributes and logged methods."""

    def __init__(self, name: str = "ada") -> None:
        self.name = name
        self.mood = "calm"
        self.strokes = [1, 2]
        self.logger: Any = None

    @log_before("mood", logging.INFO)
    def paint(self, mood: str) -> str:
        self.mood = mood
        return "painted"

    @log_after("mood")
    def repaint(self, mood: str) -> str:
        self.mood = mood
        return "repainted"

    @expose
    @log_before("mood")
    async def sketch(self, mood: str) -> str:
        self.mood = mood
        return "sketched"

    @log_after("mood")
    @expose
    async def resketch(self, mood: str) -> str:
        self.mood = mood
        return "resketched"

    @log_after("mood")
    def fail(self) -> None:
        raise ValueError("no paint")


@pytest.fixture
def painter(tmp_path: Path) -> Iterator[Painter]:
    painter = Painter()
    painter.logger = ObjectLogger(painter, tmp_path)
    yield painter
    painter.logger.close()


def lines(painter: Painter, attribute: str) -> list[str]:
    return Path(painter.logger.get_file(attribute)).read_text(encoding="utf-8").splitlines()


def test_each_attribute_has_a_file(painter: Painter, tmp_path: Path) -> None:
    assert painter.logger.write("mood") == "calm"
    painter.mood = "wild"
    assert painter.logger.write("mood", prefix="name") == "ada\twild"
    assert painter.logger.write("strokes") == "1\t2"
    assert lines(painter, "mood") == ["calm", "ada\twild"]
    assert lines(painter, "strokes") == ["1\t2"]
    assert painter.logger.get_file("mood") == str(tmp_path / "mood.log")
    assert painter.logger.folder == str(tmp_path)
    assert painter.logger.obj is painter


def test_an_array_without_dimensions_is_one_value(painter: Painter) -> None:
    numpy = pytest.importorskip("numpy")
    painter.strokes = numpy.array(3)
    assert painter.logger.write("strokes") == "3"


def test_add_name_makes_a_folder_in_the_folder(tmp_path: Path) -> None:
    logger = ObjectLogger(Painter("tcp://host:5/1"), tmp_path / "new", add_name=True)
    assert logger.folder == str(tmp_path / "new" / "tcp_host_5_1")
    assert Path(logger.folder).is_dir()
    logger.close()


def test_an_unknown_attribute_is_an_error(painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="colour"):
        painter.logger.write("colour")
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_only_messages(caplog: pytest.LogCaptureFixture) -> None:
    painter = Painter()
    painter.logger = ObjectLogger(painter, None)
    assert painter.logger.folder is None
    assert painter.logger.write("mood") is None
    painter.logger.log_attr(logging.INFO, "mood")
    assert caplog.messages == ["ada: calm"]
    with pytest.raises(ValueError, match="the logger of ada has no folder"):
        painter.logger.get_file("mood")
    painter.logger.close()


def test_messages_carry_the_name(painter: Painter, caplog: pytest.LogCaptureFixture) -> None:
    painter.logger.log(painter.logger.WARNING, "100% done")
    assert caplog.record_tuples == [("creamas_sc.ada", logging.WARNING, "ada: 100% done")]


def test_the_level_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = ObjectLogger(Painter(), tmp_path, log_level=ObjectLogger.ERROR)
    logger.log(logger.INFO, "quiet")
    logger.log(logger.CRITICAL, "loud")
    assert caplog.messages == ["ada: loud"]
    logger.close()


def test_init_shows_messages_where_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logger = ObjectLogger(Painter("eva"), None)
    again = ObjectLogger(Painter("eva"), None)
    again.log(logger.INFO, "hello")
    assert capsys.readouterr().err == "eva: hello\n"
    logger.close()


def test_init_leaves_a_configured_program_alone() -> None:
    logger = ObjectLogger(Painter("ida"), None)  # pytest has handlers on the root logger
    assert logger.logger.handlers == []


def test_without_init_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logger = ObjectLogger(Painter("eve"), None, init=False)
    logger.log(logger.CRITICAL, "hello")
    assert capsys.readouterr().err == ""
    logger.close()


def test_a_dot_in_the_name_makes_no_child_logger() -> None:
    logger = ObjectLogger(Painter("tcp://127.0.0.1:5/1"), None)
    assert logger.logger.name == "creamas_sc.tcp_127_0_0_1_5_1"


def test_close_closes_what_was_added(painter: Painter, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "messages.txt")
    painter.logger.add_handler(handler)
    painter.logger.log(logging.INFO, "hello")
    painter.logger.close()
    painter.logger.close()
    assert handler.stream is None
    assert handler not in painter.logger.logger.handlers
    assert (tmp_path / "messages.txt").read_text() == "ada: hello\n"


async def test_log_before(painter: Painter) -> None:
    assert painter.paint("wild") == "painted"
    assert await painter.sketch("mild") == "sketched"
    assert lines(painter, "mood") == ["calm", "wild"]


async def test_log_after(painter: Painter) -> None:
    assert painter.repaint("wild") == "repainted"
    assert await painter.resketch("mild") == "resketched"
    assert lines(painter, "mood") == ["wild", "mild"]


async def test_log_before_waits_for_the_await(painter: Painter) -> None:
    coroutine = painter.sketch("mild")
    painter.mood = "changed"
    await coroutine
    assert lines(painter, "mood") == ["changed"]


def test_nothing_is_logged_after_an_error(painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no paint"):
        painter.fail()
    assert list(tmp_path.iterdir()) == []


def test_the_decorators_tell_their_level(
    painter: Painter, caplog: pytest.LogCaptureFixture
) -> None:
    painter.paint("wild")
    assert caplog.record_tuples == [("creamas_sc.ada", logging.INFO, "ada: calm")]


async def test_without_a_logger_methods_just_run() -> None:
    painter = Painter()
    assert painter.paint("wild") == "painted"
    assert await painter.resketch("mild") == "resketched"


def test_decorated_methods_stay_what_they_were() -> None:
    assert inspect.iscoroutinefunction(Painter.sketch)
    assert not inspect.iscoroutinefunction(Painter.repaint)
    assert Painter.paint.__name__ == "paint"
    # However @expose and the decorators are stacked, the method is exposed.
    marks = [vars(method) for method in (Painter.sketch, Painter.resketch)]
    assert all("__creamas_exposed__" in mark for mark in marks)


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of another user")
def test_what_another_user_has_put_there_is_not_written_to(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    shared.chmod(0o1777)
    own.write_text("before")
    link, folder = shared / "mood.log", shared / "ada"
    link.symlink_to(own)
    folder.mkdir()
    for planted in (link, folder):
        os.lchown(planted, 65534, 65534)
    with pytest.raises(BadValue, match=f"{folder} belongs to the user 65534, "):
        ObjectLogger(Painter(), shared, add_name=True)
    logger = ObjectLogger(Painter(), shared)
    with pytest.raises(BadValue, match=f"{link} belongs to the user 65534, "):
        logger.write("mood")
    assert logger.write("name") == "ada"
    assert own.read_text() == "before"
    logger.close()
