"""What is on disk: opening it, its tables as numbered migrations, and how a run's values are written there.

``MIGRATIONS`` is only ever appended to; what a migration does is spelled out in it and never refers to
today's columns, so an old file takes the same steps whenever it is opened. Each runs in a
transaction of its own, together with the line in ``schema_version`` that says so: a kernel that dies
half way leaves the version before. Two kernels that migrate at once wait for each other at the
transaction's beginning, and the second finds the work done.

What is written is plain: numbers, and text that every database takes. Text may hold what some refuse
(NUL, half a surrogate pair); such characters are kept as U+001A and four hexadecimal digits. JSON is
ASCII, with the ``NaN`` and ``Infinity`` of Python's ``json``. Whatever a notebook's variables hold,
and whatever the service answers, writing never raises: a run is worth more than one odd value in it.
"""

from __future__ import annotations

import contextlib
import json
import math
import numbers
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from xpander_magics.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

Migration = Callable[["Connection"], None]

BUSY_SECONDS = 30.0
"""How long one waits for another's write where the URL of an SQLite file has no ``timeout``."""

MARK = "\x1a"
"""Begins an escaped character. SUBSTITUTE is made for this, and so rare that hardly a text pays for it."""

_UNFIT = re.compile("[\x00\x1a\ud800-\udfff]")
_MARKED = re.compile(MARK + "([0-9a-f]{4})")
_MOST_BITS = 10_000  # Python refuses to write integers of more than 4,300 digits
_MOST_LEVELS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def first(connection: Connection) -> None:
    """The table of runs: what filters look at first, long texts last, for a row's beginning is read faster."""
    from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, Table, Text

    text = (
        *("sweep_id", "experiment", "task_id", "cache_key", "status", "error_type", "target", "target_id"),
        *("thread_id", "target_kind", "agent_version", "version", "base_url", "mode", "provider", "model"),
        *("effort", "think_mode", "requested_provider", "requested_model", "requested_effort", "tags"),
        *("scores", "title", "note", "prompt", "template", "variables", "result", "output", "error"),
        *("tools_used", "metadata", "request"),
    )
    integers = (
        *("added_at", "created_at", "started_at", "finished_at", "sent_at", "repeat", "attempts"),
        *("prompt_tokens", "completion_tokens", "total_tokens", "actions"),
    )
    table = Table(
        "runs",
        MetaData(),
        Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("run_id", Text, nullable=False),
        *(Column(name, BigInteger) for name in integers),
        *(Column(name, Double) for name in ("cost_usd", "latency_s", "ttft_s", "queue_s", "server_s")),
        Column("is_byok", Boolean),
        *(Column(name, Text) for name in text),
        sqlite_autoincrement=True,  # a number is never given twice, even after rows are deleted
    )
    Index("runs_run_id", table.c.run_id, unique=True)
    Index("runs_task_id", table.c.task_id)
    Index("runs_sweep_id", table.c.sweep_id)
    Index("runs_experiment", table.c.experiment)
    Index("runs_cache_key_status", table.c.cache_key, table.c.status)
    table.create(connection)


MIGRATIONS: tuple[Migration, ...] = (first,)
"""The first makes version 1 of nothing, the second version 2 of that, and so on."""


def migrate(engine: Engine, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Brings a store up to date.

    Args:
        engine: one whose transactions lock out other writers from their beginning.
        migrations: all there are, the first first.

    Raises:
        StoreError: the store is newer than ``migrations``.
    """
    from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, func, insert, inspect, select

    versions = Table(
        "schema_version",
        MetaData(),
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("migrated_at", BigInteger, nullable=False),
    )

    def version(connection: Connection) -> int:
        if not inspect(connection).has_table(versions.name):
            return 0
        return connection.execute(select(func.max(versions.c.version))).scalar() or 0

    with engine.connect() as connection:
        found = version(connection)
    while found < len(migrations):
        with engine.begin() as connection:
            found = version(connection)  # another kernel may have been faster
            if found < len(migrations):
                versions.create(connection, checkfirst=True)
                migrations[found](connection)
                found += 1
                connection.execute(insert(versions).values(version=found, migrated_at=time.time_ns() // 1000))
    if found > len(migrations):
        raise StoreError(
            f"The run store was written by a newer xpander_magics (its version is {found}, this one knows up to"
            f" {len(migrations)}). Upgrade with `pip install -U xpander-magics`, or set XPANDER_STORE to another one."
        )


def default_url() -> str:
    """An SQLite file in the user's data folder."""
    from platformdirs import user_data_dir
    from sqlalchemy import URL

    path = os.path.join(user_data_dir("xpander_magics", appauthor=False), "runs.db")
    return URL.create("sqlite", database=path).render_as_string()


def open_engine(url: URL) -> Engine:
    """The store there, made if it is new, and brought up to date. Raises what databases and drivers raise."""
    from sqlalchemy import create_engine

    sqlite = url.get_backend_name() == "sqlite"
    engine = _sqlite_engine(url) if sqlite else create_engine(url, hide_parameters=True, pool_pre_ping=True)
    try:
        _patiently(
            lambda: migrate(engine.execution_options(writes=True)), float(str(url.query.get("timeout", BUSY_SECONDS)))
        )
    except BaseException:
        engine.dispose()
        raise
    return engine


def _sqlite_engine(url: URL) -> Engine:
    """An engine whose transactions are SQLite's own, in a file that is its owner's alone if it is new."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool

    # Transactions begin where we say so, not where Python's sqlite3 would guess.
    arguments: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
    if "timeout" not in url.query:
        arguments["timeout"] = BUSY_SECONDS
    pool: dict[str, Any] = {"poolclass": QueuePool}
    if url.database in (None, "", ":memory:"):
        pool |= {"pool_size": 1, "max_overflow": 0}  # each connection would have a database of its own
    elif not url.database.startswith("file:"):
        _make_private(url.database)
    engine = create_engine(url, hide_parameters=True, connect_args=arguments, **pool)

    @event.listens_for(engine, "connect")
    def connected(dbapi_connection: Any, _: Any) -> None:
        dbapi_connection.execute("PRAGMA synchronous=FULL")
        dbapi_connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _make_private(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _patiently(migrate_it: Callable[[], None], seconds: float) -> None:
    """Tries again while it is locked: SQLite doesn't wait by itself where another kernel turns WAL on."""
    until = time.monotonic() + seconds
    while True:
        try:
            return migrate_it()
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.02)


def escape(text: str) -> str:
    """The text as every database takes it; ``unescape`` undoes it."""
    if "\0" not in text and MARK not in text:
        if text.isascii():
            return text
        with contextlib.suppress(UnicodeEncodeError):
            text.encode()
            return text
    return _UNFIT.sub(lambda found: f"{MARK}{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """The text as it was before ``escape``."""
    return _MARKED.sub(lambda found: chr(int(found[1], 16)), text) if MARK in text else text


def to_json(value: Any) -> str:
    """The value as JSON in ASCII; what JSON doesn't know is spelled as text."""
    try:
        return _encode(value)
    except Exception:  # ``_spelled`` asks foreign objects, whose methods may raise anything
        return _encode(_tamed(value, ()))


def from_json(text: str | None) -> Any:
    """What the text says; the text itself where it is no JSON (edited by hand, or nested too deeply)."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _spelled(value: Any) -> Any:
    """A value that JSON doesn't know, as one that it does."""
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    for method in ("isoformat", "tolist"):  # times; numpy's and pandas' scalars and arrays
        if callable(getattr(value, method, None)):
            return getattr(value, method)()
    if isinstance(value, (set, frozenset)):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else str(value)


_encode = json.JSONEncoder(separators=(",", ":"), default=_spelled).encode


def _tamed(value: Any, above: tuple[int, ...]) -> Any:
    """The value with all replaced that JSON can't hold: keys, circles, depths, huge integers."""
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < _MOST_BITS else hex(value)
    if id(value) in above or len(above) == _MOST_LEVELS:
        return f"<{type(value).__name__}>"
    try:
        return _tamed_inside(value, (*above, id(value)))
    except Exception:  # as above
        return f"<{type(value).__name__}>"


def _tamed_inside(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _tamed(item, above) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_tamed(item, above) for item in value]
    return _tamed(_spelled(value), above)


def to_real(value: Any) -> float | None:
    """A number as a 64-bit float, None for what is none. NaN is None, too: SQLite keeps it so."""
    if type(value) is not float:
        try:
            value = float(value) if isinstance(value, numbers.Real) else None
        except (OverflowError, ValueError):
            return None
    return None if value is None or math.isnan(value) else value


def to_integer(value: Any) -> int | None:
    """A number as a 64-bit integer; None for what isn't whole, and for one beyond them: missing, not wrong."""
    if type(value) is not int:
        real = to_real(value)
        if real is None or isinstance(value, bool) or not real.is_integer():
            return None
        value = int(value)
    return value if -(1 << 63) < value < 1 << 63 else None


def to_microseconds(value: Any) -> int | None:
    """A time as microseconds since 1970 in UTC, which one without a zone is taken to be in."""
    if not isinstance(value, datetime) or type(value).__name__ == "NaTType":  # NaT is a datetime
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return int((aware - _EPOCH) // _MICROSECOND)


def from_microseconds(stored: int | None) -> datetime | None:
    """The time, aware, in UTC."""
    return None if stored is None else _EPOCH + stored * _MICROSECOND
