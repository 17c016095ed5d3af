"""Opening a store's database, and what its errors mean.

Why SQLite is set up as it is:

- WAL: readers and the one writer don't wait for each other, in any number of kernels.
- ``synchronous=FULL``: a commit survives a power cut. NORMAL would be 0.1 to 0.2 ms faster per commit;
  a lost task id costs more.
- ``BEGIN IMMEDIATE`` for all that writes: who waits, waits at the beginning (as long as ``timeout`` in
  the URL says, else 30 s), and never fails in the middle because someone else wrote first.
- Threads of one kernel queue at a lock of our own: SQLite's waiting is sleeping and asking again.
- The file is made with mode 0600 before SQLite sees it; ``-wal`` and ``-shm`` take their mode from it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xpander_magics.errors import StoreError
from xpander_magics.store.migrations import migrate

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

BUSY_SECONDS = 30.0
"""How long one waits for another's write where the URL of an SQLite file has no ``timeout``."""

_ADVICE = (
    ("not a database", "It is damaged, or no SQLite file. Move it away to begin a new one, or set XPANDER_STORE."),
    ("malformed", "It is damaged. Copy it, try `sqlite3 FILE .recover`, and move it away to begin a new one."),
    ("UNIQUE", "A run of this id is kept already: use update()."),
    ("readonly", "Make the file and its folder writable, or set XPANDER_STORE to another place."),
    ("full", "Free some space on that disk, or set XPANDER_STORE to another place."),
    ("disk I/O", "Look whether the disk is full or failing, or set XPANDER_STORE to another place."),
    ("locked", "Another program has been writing to it for too long: close that one, and try again."),
    ("unable to open", "Look whether its folder exists and is yours to write, or set XPANDER_STORE."),
    (
        "No module named",
        "Install that driver (for PostgreSQL: `pip install 'psycopg[binary]'`), or change XPANDER_STORE.",
    ),
    ("load plugin", "SQLAlchemy knows no such database or driver: correct XPANDER_STORE."),
)
_OTHERWISE = "Look at the place and its settings, or set XPANDER_STORE to another one."


def _default_url() -> str:
    """An SQLite file in the user's data folder."""
    from platformdirs import user_data_dir
    from sqlalchemy import URL

    path = os.path.join(user_data_dir("xpander_magics", appauthor=False), "runs.db")
    return URL.create("sqlite", database=path).render_as_string()


def address(asked: str | None) -> URL:
    """Where the store is: as asked, else ``XPANDER_STORE``, else the default.

    Raises:
        StoreError: it is no SQLAlchemy URL.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(asked or os.environ.get("XPANDER_STORE") or _default_url())
    except (ArgumentError, ValueError):  # its message, and the text itself, may hold a password
        raise StoreError(
            "The run store's address is no SQLAlchemy URL. Set XPANDER_STORE to one like"
            " sqlite:////home/me/runs.db or postgresql+psycopg://me@host/runs."
        ) from None


def shown(url: URL) -> str:
    """An address as it may be shown: a file's path, or the URL without its password."""
    in_a_file = url.get_backend_name() == "sqlite" and url.database
    return in_a_file or url.render_as_string(hide_password=True)


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


def in_short(error: Exception) -> str:
    """What is wrong, without SQL and parameters (they hold prompts), and what to do next."""
    said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return f"{said}. {next((advice for sign, advice in _ADVICE if sign in said), _OTHERWISE)}"
