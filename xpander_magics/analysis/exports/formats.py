"""DataFrames as files: CSV, JSON lines, Parquet, SQLite. Written by batches: little more than the frame is held."""

from __future__ import annotations

import csv
import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpander_magics import extras
from xpander_magics.errors import ConfigError
from xpander_magics.safety import encodable
from xpander_magics.store.columns import COLUMNS, Json
from xpander_magics.store.values import to_json

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 4096
_MARK = 0x78_70_72_73  # "xprs": says in an SQLite file's header that it is an export
_MARK_AT = 68
# Full-width signs are formulas to some spreadsheets, and white space before a sign to those that trim it.
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_JSON = {column.name for column in COLUMNS if isinstance(column.kind, Json)}


def to_csv(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """One table as CSV in UTF-8, its first row the names."""
    (frame,) = tables.values()
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)  # ends lines with CRLF; with LF alone, a CR within a cell wouldn't be quoted
        writer.writerow([_harmless(str(name)) for name in frame.columns])
        for batch in _batches(frame, as_json=True):
            columns = (_cells(values, kind) for kind, values in batch.values())
            writer.writerows(zip(*columns, strict=True))


def _cells(values: Sequence[Any], kind: str) -> Sequence[Any]:
    if kind == "text":
        return [value if value is None else _harmless(value) for value in values]
    if kind == "flag":
        return [value if value is None else str(value).lower() for value in values]
    return values


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula, nor a reader for the end: Python's before 3.11 take no NUL."""
    text = text.replace("\0", "\\x00")
    return f"'{text}" if _FORMULA.match(text) else text


def to_json_lines(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """One table as JSON lines, an object a row."""
    (frame,) = tables.values()
    with open(path, "w", encoding="ascii", newline="") as file:
        for batch in _batches(frame, as_json=False):
            columns = [values for _, values in batch.values()]
            for row in zip(*columns, strict=True):
                file.write(_valid_json(dict(zip(batch, row, strict=True))) + "\n")


def to_parquet(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """One table as Parquet; pandas reads its dtypes back."""
    import pandas as pd

    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(extras.missing("Parquet needs", "parquet")) from None
    (frame,) = map(_with_encodable_names, tables.values())
    kinds = {name: _kind(frame[name]) for name in frame.columns}
    schema, writer = None, None
    try:
        # Without a row, too, there is a table: its columns.
        for start in range(0, max(len(frame), 1), _BATCH):
            batch = frame.iloc[start : start + _BATCH].copy(deep=False)
            for name, kind in kinds.items():
                if batch[name].dtype == "category":
                    batch[name] = batch[name].cat.rename_categories(lambda value: encodable(str(value)))
                elif kind in ("json", "text"):
                    values = _values(batch[name], kind, as_json=True)
                    batch[name] = pd.array([encodable(value) for value in values], dtype="string")
            table = pa.Table.from_pandas(batch, schema=schema, preserve_index=False)
            if writer is None:
                schema = table.schema
                writer = pq.ParquetWriter(path, schema)
            writer.write_table(table)
    except pa.ArrowException as error:
        raise ConfigError(f"{path.suffix[1:].capitalize()} can't hold these runs: {error}.") from error
    finally:
        if writer is not None:
            writer.close()


def to_sqlite(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Each table as one of a new SQLite database: INTEGER, REAL and TEXT columns, flags as 0 and 1."""
    import pandas as pd

    types = {"integer": "INTEGER", "flag": "INTEGER", "real": "REAL"}
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA application_id = {_MARK}")
            connection.execute("PRAGMA journal_mode = MEMORY")
            for title, named in tables.items():
                frame = _with_encodable_names(named)
                dtypes = {name: types.get(_kind(frame[name]), "TEXT") for name in frame.columns}
                for start, batch in enumerate(_batches(frame, as_json=True)):
                    columns = {name: [_stored(value) for value in values] for name, (_, values) in batch.items()}
                    rows = pd.DataFrame(columns, dtype="object", columns=list(dtypes))
                    rows.to_sql(title, connection, index=False, dtype=dtypes, if_exists="append" if start else "fail")
            connection.commit()
    except (sqlite3.Error, pd.errors.DatabaseError, ValueError) as error:  # ValueError: a column's name doesn't do
        raise ConfigError(f"SQLite can't hold these runs: {error}.") from error


def _stored(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else encodable(value)


def is_foreign_database(path: Path) -> bool:
    """Whether this is an SQLite database that ``to_sqlite`` hasn't written.

    Raises:
        OSError: that can't be read; FileNotFoundError where nothing is there.
    """
    with open(path, "rb") as file:
        head = file.read(100)
    mark = int.from_bytes(head[_MARK_AT : _MARK_AT + 4], "big")
    return head.startswith(b"SQLite format 3\0") and mark != _MARK


FORMATS: dict[str, Callable[[Mapping[str, pd.DataFrame], Path], None]] = {
    ".csv": to_csv,
    ".jsonl": to_json_lines,
    ".ndjson": to_json_lines,
    ".parquet": to_parquet,
    ".sqlite": to_sqlite,
    ".db": to_sqlite,
}
"""The endings that are known, and what writes them."""


def _batches(frame: pd.DataFrame, *, as_json: bool) -> Iterator[dict[str, tuple[str, list[Any]]]]:
    """Some thousand rows at a time: of each column its kind, and the values as Python's own, None where missing.

    Args:
        as_json: lists and dicts as JSON.
    """
    kinds = {name: _kind(frame[name]) for name in frame.columns}
    # Without a row, too, there is a table: its columns.
    for start in range(0, max(len(frame), 1), _BATCH):
        batch = frame.iloc[start : start + _BATCH]
        yield {str(name): (kind, _values(batch[name], kind, as_json=as_json)) for name, kind in kinds.items()}


def plain_columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns as lists of what JSON in UTF-8 holds, None where missing; lists and dicts as JSON."""
    found: dict[str, list[Any]] = {str(name): [] for name in frame.columns}
    for batch in _batches(frame, as_json=True):
        for name, (_, values) in batch.items():
            found[name] += map(encodable, values)
    return found


def _kind(column: pd.Series[Any]) -> str:
    """What a column holds: time, flag, integer, real, json, or text."""
    from pandas.api import types

    if types.is_datetime64_any_dtype(column.dtype):
        return "time"
    if types.is_bool_dtype(column.dtype):
        return "flag"
    if types.is_integer_dtype(column.dtype):
        return "integer"
    if types.is_float_dtype(column.dtype):
        return "real"
    if column.dtype != "object":
        return "text"
    # Of other columns than ours, those that hold nothing but text stay as they are.
    is_text = column.name not in _JSON and all(isinstance(value, str) for value in column.dropna())
    return "text" if is_text else "json"


def _values(column: pd.Series[Any], kind: str, *, as_json: bool) -> list[Any]:
    import numpy as np

    missing = column.isna().to_numpy()
    if kind == "time":
        aware = getattr(column.dtype, "tz", None) is not None
        naive = column.dt.tz_convert("UTC").dt.tz_localize(None) if aware else column
        texts = np.datetime_as_string(naive.to_numpy("datetime64[us]"), unit="us")
        values = [f"{text}Z" if aware else str(text) for text in texts]
    elif kind == "json":
        values = [_valid_json(value) for value in column] if as_json else column.tolist()
    elif kind == "real":
        reals = column.to_numpy("float64", na_value=np.nan)
        missing, values = ~np.isfinite(reals), reals.tolist()
    elif kind == "text":
        values = [value if gone else str(value) for gone, value in zip(missing, column, strict=True)]
    else:
        values = column.astype("object").tolist()
    return [None if gone else value for gone, value in zip(missing, values, strict=True)]


def _valid_json(value: Any) -> str:
    """JSON that every reader takes: NaN and infinities, which JSON lacks, as null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        # What JSON doesn't know is spelled as text first.
        return json.dumps(_finite(json.loads(to_json(value))), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_encodable_names(frame: pd.DataFrame) -> pd.DataFrame:
    named: pd.DataFrame = frame.rename(columns=lambda name: encodable(str(name)))
    return named
