"""Loggers for simulation objects: messages, and a file with the values of each attribute."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from creamas_sc.runtime.validation import check_own, make_folder
from creamas_sc.util import sanitize_agent_name

__all__ = ["ObjectLogger", "log_after", "log_before"]

Method = TypeVar("Method", bound=Callable[..., Any])


class ObjectLogger:
    """Logs for one object: messages through `logging`, values of attributes into files.

    Each attribute has its own file, ``<attribute>.log`` in `folder`, with one line per `write`.

    Args:
        obj: The object; it must have a ``name``.
        folder: Where the files go; created if missing. None for no files.
        add_name: Put the files into a subfolder that is named after the object.
        init: Set the level, and show messages on standard error unless the program has configured
            logging.
        log_level: The level to set.
    """

    DEBUG: ClassVar[int] = logging.DEBUG
    INFO: ClassVar[int] = logging.INFO
    WARNING: ClassVar[int] = logging.WARNING
    ERROR: ClassVar[int] = logging.ERROR
    CRITICAL: ClassVar[int] = logging.CRITICAL

    def __init__(
        self,
        obj: Any,
        folder: str | os.PathLike[str] | None,
        add_name: bool = False,
        init: bool = True,
        log_level: int = logging.DEBUG,
    ) -> None:
        self._obj = obj
        name = sanitize_agent_name(obj.name)
        self._folder = None if folder is None else Path(folder, name if add_name else "")
        make_folder(self._folder)
        self._handlers: list[logging.Handler] = []
        # With a dot in the name, it would be a child of another logger.
        self.logger = logging.getLogger(f"creamas_sc.{name.replace('.', '_')}")
        if init:
            self.logger.setLevel(log_level)
            if not self.logger.hasHandlers():
                self.add_handler(logging.StreamHandler())
        else:
            self.add_handler(logging.NullHandler())

    @property
    def obj(self) -> Any:
        """The object that is logged."""
        return self._obj

    @property
    def folder(self) -> str | None:
        """Where the attributes' files are."""
        return None if self._folder is None else str(self._folder)

    def add_handler(self, handler: logging.Handler) -> None:
        """Send messages to ``handler`` too; `close` closes it."""
        self._handlers.append(handler)
        self.logger.addHandler(handler)

    def get_file(self, attr_name: str) -> str:
        """Return the absolute path of an attribute's file.

        Raises:
            ValueError: The logger has no folder.
        """
        if self._folder is None:
            raise ValueError(f"the logger of {self._obj.name} has no folder")
        return str(Path(self._folder, f"{attr_name}.log").absolute())

    def log(self, level: int, msg: str) -> None:
        """Log a message, prefixed with the object's name."""
        self.logger.log(level, "%s: %s", self._obj.name, msg)

    def log_attr(self, level: int, attr_name: str) -> None:
        """Write an attribute's value into its file and log it as a message."""
        msg = self.write(attr_name)
        self.log(level, self._line(attr_name) if msg is None else msg)

    def write(self, attr_name: str, prefix: str | None = None) -> str | None:
        """Append an attribute's value to its file, a collection's items separated by tabs.

        Args:
            attr_name: The attribute of `obj`.
            prefix: Another attribute, whose value comes first in the line.

        Returns:
            The line; None if the logger has no folder.

        Raises:
            BadValue: Another user may have put the file there.
        """
        if self._folder is None:
            return None
        line = self._line(attr_name)
        if prefix is not None:
            line = f"{getattr(self._obj, prefix)}\t{line}"
        path = self.get_file(attr_name)
        if os.path.lexists(path):
            check_own(path)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        return line

    def close(self) -> None:
        """Remove and close the handlers that this object added; may be called again."""
        while self._handlers:
            handler = self._handlers.pop()
            self.logger.removeHandler(handler)
            handler.close()

    def _line(self, attr_name: str) -> str:
        value = getattr(self._obj, attr_name)
        if isinstance(value, (str, bytes)):
            return str(value)
        try:
            items = iter(value)
        except TypeError:  # not iterable, like an array without dimensions
            return str(value)
        return "\t".join(map(str, items))


def log_before(attr: str, level: int = logging.DEBUG) -> Callable[[Method], Method]:
    """Decorate a method, plain or async, to log an attribute's value before each call.

    The object's ``logger`` must be an `ObjectLogger`, or None to log nothing. The order of this
    decorator and ``@expose`` does not matter.
    """
    return _logging_decorator(attr, level, before=True)


def log_after(attr: str, level: int = logging.DEBUG) -> Callable[[Method], Method]:
    """Like `log_before`, but after each call that does not raise."""
    return _logging_decorator(attr, level, before=False)


def _logging_decorator(attr: str, level: int, before: bool) -> Callable[[Method], Method]:
    @contextmanager
    def logged(obj: Any) -> Iterator[None]:
        logger = getattr(obj, "logger", None)
        if logger is not None and before:
            logger.log_attr(level, attr)
        yield
        if logger is not None and not before:
            logger.log_attr(level, attr)

    def decorate(method: Any) -> Any:
        @wraps(method)
        async def async_wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            with logged(self):
                return await method(self, *args, **kwargs)

        @wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            with logged(self):
                return method(self, *args, **kwargs)

        return async_wrapper if inspect.iscoroutinefunction(method) else wrapper

    return decorate
