"""Tables of results: columns, and what pyarrow, pandas, polars and files make of them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from creamas_sc.errors import BadValue
from creamas_sc.results.columns import to_json
from creamas_sc.runtime import html
from creamas_sc.runtime.installation import how_to_install

# Rows that notebooks show.
HTML_ROWS: Final = 20
_ARROW_TYPES: Final = {"d": "float64", "q": "int64"}
# The others are the user's own.
_OF_EXTRAS: Final = frozenset({"matplotlib", "pyarrow"})
_SUFFIXES: Final = (".parquet", ".csv")


class Table(Mapping[str, Sequence[Any]]):
    """Columns of one length, by name, in order.

    A column is a list, or an `array.array` where all its values are floats or all are ints.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> Sequence[Any]:
        try:
            return self._columns[name]
        except KeyError:
            columns = ", ".join(self._columns)
            raise KeyError(f"there is no column {name!r}; there are: {columns}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<Table of {self.num_rows} rows: {', '.join(self)}>"

    def _repr_html_(self) -> str:
        """For notebooks: the first rows, with pictures where objects are some."""
        shown = range(min(self.num_rows, HTML_ROWS))
        rows = [[column[at] for column in self.values()] for at in shown]
        return html.table(list(self), rows, f"{len(shown)} of {self.num_rows} rows")

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self._columns.values()), ()))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict."""
        for values in zip(*self._columns.values(), strict=True):
            yield dict(zip(self._columns, values, strict=True))

    def to_arrow(self) -> Any:
        """The `pyarrow.Table`.

        A column of values that Arrow has no common type for, text and numbers say, becomes text.
        """
        pyarrow = needed("pyarrow", "results")
        return pyarrow.table({name: _arrow(pyarrow, column) for name, column in self.items()})

    def to_pandas(self) -> Any:
        """The `pandas.DataFrame`."""
        needed("pandas", "results")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """The ``polars.DataFrame``."""
        return needed("polars", "results").from_arrow(self.to_arrow())

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file."""
        needed("pyarrow.parquet", "results").write_table(self.to_arrow(), os.fspath(path))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file, with a line of names; bytes are left out."""
        pyarrow = needed("pyarrow", "results")
        table = self.to_arrow()
        kept = [f.name for f in table.schema if not pyarrow.types.is_binary(f.type)]
        needed("pyarrow.csv", "results").write_csv(table.select(kept), os.fspath(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file of the kind that its name's ending says: ``.parquet`` or ``.csv``.

        Raises:
            BadValue: It has another ending.
        """
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in _SUFFIXES:
            raise BadValue(f"{os.fspath(path)} must end with {' or '.join(_SUFFIXES)}")
        (self.to_parquet if suffix == ".parquet" else self.to_csv)(path)


def needed(module: str, extra: str) -> Any:
    """Import a module of an extra.

    Raises:
        ImportError: It is not installed; the error says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        text = f"{package}, which this Python lacks"
        how = how_to_install(extra) if package in _OF_EXTRAS else f"pip install {package}"
        raise ImportError(f"this needs {text}: {how}", name=error.name) from error


def concat(columns: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Join columns; an `array.array` stays one."""
    if len(columns) == 1:
        return columns[0]
    codes = {column.typecode if isinstance(column, array) else "" for column in columns}
    if len(codes) == 1 and (code := codes.pop()):
        joined: array[Any] = array(code)
        for column in columns:
            joined.extend(column)
        return joined
    return [value for column in columns for value in column]


def _arrow(pyarrow: Any, column: Sequence[Any]) -> Any:
    if isinstance(column, array):
        kind = getattr(pyarrow, _ARROW_TYPES[column.typecode])()
        return pyarrow.Array.from_buffers(kind, len(column), [None, pyarrow.py_buffer(column)])
    if (encoded := getattr(column, "encoded", None)) is not None:  # objects
        return pyarrow.array([encoded(at) for at in range(len(column))], pyarrow.binary())
    if any(isinstance(value, (dict, list)) for value in column):
        return pyarrow.array([None if value is None else to_json(value) for value in column])
    try:
        return pyarrow.array(column)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
        return pyarrow.array([None if value is None else str(value) for value in column])
