"""Rows as they are read. One that is damaged doesn't hide the others: disks fail, and people edit files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from xpander_magics.safety import plain
from xpander_magics.store.columns import KEPT, Flag, Number
from xpander_magics.store.frames import BATCH

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

Batches = Iterable[Sequence[Sequence[Any]]]
_Made = TypeVar("_Made")

_KINDS = {column.name: column.kind for column in KEPT}
_MOST_NAMED = 5


def read(
    connection: Connection,
    names: Sequence[str],
    queries: Callable[[], Iterable[Select[Any]]],
    make: Callable[[Batches], _Made],
    where: str,
) -> _Made:
    """What is made of rows; values that can't have been written so are mended or left out, and a warning names them.

    Args:
        names: of the columns that the statements read, ``run_id`` among them.
        queries: gives the statements, once more where something is damaged.
        make: gets the rows in batches.
        where: the store's place, for the warning.
    """
    try:
        return make(_batches(connection, queries()))
    except Exception as error:
        if not _is_damage(error):
            raise
    damaged: dict[str, list[str]] = {}
    with _lenient(connection):
        mended = ([_mended(row, names, damaged) for row in batch] for batch in _batches(connection, queries()))
        made = make(mended)
    if damaged:
        told = [f"{plain(run_id[:12])} ({', '.join(columns)})" for run_id, columns in damaged.items()]
        more = f" and {len(told) - _MOST_NAMED:,} more" if len(told) > _MOST_NAMED else ""
        warnings.warn(
            f"The run store {where} is damaged. Of these runs the columns in brackets are lost, or have other "
            f"characters than were written: {', '.join(told[:_MOST_NAMED])}{more}. Copy the file before more is lost.",
            stacklevel=2,
        )
    return made


def _batches(connection: Connection, queries: Iterable[Select[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Rows as the driver has them: SQLAlchemy's would double the time."""
    for query in queries:
        result = connection.execute(query)
        cursor: Any = result.cursor
        while batch := cursor.fetchmany(BATCH):
            yield batch
        result.close()


def _is_damage(error: Exception) -> bool:
    """Whether a value that nobody has written may be why; sqlite3 says so of text that is no UTF-8."""
    return isinstance(error, (TypeError, ValueError, OverflowError)) or "Could not decode" in str(error)


@contextlib.contextmanager
def _lenient(connection: Connection) -> Iterator[None]:
    """Gives text that is no UTF-8 as bytes; that takes longer."""
    driver: Any = connection.connection.driver_connection
    strict = getattr(driver, "text_factory", None)
    if strict is not None:
        driver.text_factory = _text
    try:
        yield
    finally:
        if strict is not None:
            driver.text_factory = strict


def _text(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _mended(row: Sequence[Any], names: Sequence[str], damaged: dict[str, list[str]]) -> list[Any]:
    """A row with what fits its columns, and with text as far as it can be read."""
    mended, wrong = list(row), []
    for place, (name, stored) in enumerate(zip(names, row, strict=True)):
        kind = _KINDS[name]
        value = bool(stored) if isinstance(kind, Flag) and stored in (0, 1) else stored  # SQLite has no booleans
        if not kind.fits(value):
            wrong.append(name)
            is_text = isinstance(stored, bytes) and not isinstance(kind, Number)
            mended[place] = stored.decode("utf-8", "replace") if is_text else None
    if wrong:
        damaged[str(mended[names.index("run_id")])] = wrong
    return mended
