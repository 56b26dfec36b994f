"""A TOML file, its keys and the lines of these."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from creamas_sc.errors import BadValue

T = TypeVar("T")
Key = tuple[str, ...]
_ERROR: Final = re.compile(r"(?P<why>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<key>.*)`")


class Source:
    """The text of a file.

    Attributes:
        path: Of the file, absolute.
        text: What is in it.
        document: The same as values.

    Raises:
        BadValue: It is not TOML.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        try:
            self.document: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:  # its text has the line
            raise BadValue(f"{path} is not a TOML file: {error}") from None

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a file.

        Raises:
            BadValue: It cannot be read.
        """
        try:
            return cls(path.absolute(), path.read_bytes().decode())
        except OSError as error:
            raise BadValue(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BadValue(f"{path} is not a TOML file: {error}") from None

    @cached_property
    def _lines(self) -> dict[Key, int]:
        """The line of each key, from 1 on."""
        rows, lines = self.text.split("\n"), dict[Key, int]()
        table: Key = ()
        begin = 0
        while begin < len(rows):
            found, end = _statement(rows, begin)
            keys = list(_keys(found))
            if rows[begin].lstrip().startswith("["):
                table = keys[-1]
            else:
                keys = [(*table, *key) for key in keys]
            for key in keys:
                lines.setdefault(key, begin + 1)
            begin = end
        return lines

    def refusal(self, key: Key, why: str) -> BadValue:
        """The error that says what is wrong at a key, or at the table that lacks it."""
        known = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in self._lines), ())
        line = f", line {self._lines[known]}" if known else ""
        return BadValue(": ".join(filter(None, (f"{self.path}{line}", ".".join(key), why))))

    def convert(self, value: Any, kind: type[T], at: Key = ()) -> T:
        """Return a value of the file as ``kind``.

        Args:
            at: Where the value is.

        Raises:
            BadValue: It is not that; the message has the line and the key.
        """
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            why, place = _ERROR.fullmatch(str(error)).group("why", "place")  # type: ignore[union-attr]
            key = (*at, *re.findall(r"[^.\[\]]+", place or ""))
            if field := _FIELD.fullmatch(why):
                key = (*key, field["key"])
                why = "is missing"
                if field["how"].startswith("contains"):
                    known = [each.encode_name for each in msgspec.structs.fields(_at(kind, place))]
                    why = f"is not a known key; these are: {', '.join(known)}"
            raise self.refusal(key, _in_words(why)) from None


def _in_words(why: str) -> str:
    """What msgspec says, in the words of TOML, which has no null."""
    for word, instead in (("`", ""), (" | null", ""), (" | ", " or "), ("object", "table")):
        why = why.replace(word, instead)
    return why[0].lower() + why[1:]


def _at(kind: Any, place: str | None) -> Any:
    """The struct at a place in another one, of which all fields on the way are structs."""
    for name in re.findall(r"[^.\[\]]+", place or ""):
        (field,) = (each for each in msgspec.structs.fields(kind) if each.encode_name == name)
        kinds = [field.type, *getattr(field.type, "__args__", ())]
        kind = next(each for each in kinds if hasattr(each, "__struct_fields__"))
    return kind


def _statement(rows: list[str], begin: int) -> tuple[dict[str, Any], int]:
    """What the statement on a row says, and the row after it."""
    for end in range(begin + 1, len(rows) + 1):
        try:
            return tomllib.loads("\n".join(rows[begin:end])), end
        except tomllib.TOMLDecodeError:  # it goes on, as a list over several lines does
            continue
    return {}, len(rows)


def _keys(value: Any, at: Key = ()) -> Iterator[Key]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield (*at, name)
            yield from _keys(inner, (*at, name))
