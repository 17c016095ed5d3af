"""Opening a store's database, and what its errors mean.

Why SQLite is set up as it is:

- WAL: readers and the one writer don't wait for each other, in any number of kernels.
- ``synchronous=FULL``: a commit survives a power cut. NORMAL would be 0.1 to 0.2 ms faster per commit;
  a lost task id costs more.
- ``BEGIN IMMEDIATE`` for all that writes: who waits, waits at the beginning (as long as ``timeout`` in
  the URL says, else 30 s), and never fails in the middle because someone else wrote first.
- Threads of one kernel queue at a lock of our own: SQLite's waiting is sleeping and asking again.
- The file is made with mode 0600 before SQLite sees it; ``-wal`` and ``-shm`` take their mode from it.

Why PostgreSQL is:

- Few connections a process, and no limit of half a minute to the wait for one: a server has a hundred for
  everybody, and with hundreds of threads the last one in the queue is not stuck, only last. Where the server has
  none left, or has only just been started, connecting is tried again for as long as others' writes are waited for.
- Each connection is tried before it is used: the server may have been restarted since. What is sent into a network
  that is gone (a laptop that slept, a router that forgot) fails within half a minute instead of a quarter of an hour.
- The encoding must be UTF8: in another one some run could not be kept, and that one has been paid for.
- READ COMMITTED, whatever the server's default: every write is one statement or locks its rows, and stricter levels
  would fail where this one waits.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from xpander_magics.errors import StoreError
from xpander_magics.safety import is_secret_name
from xpander_magics.store.migrations import migrate

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

_Result = TypeVar("_Result")

BUSY_SECONDS = 30.0
"""How long one waits for another's write where the URL of an SQLite file has no ``timeout``."""

CONNECTIONS = 5
"""How many connections to a server a process has at most."""

KEPT_OPEN = 2
"""How many of them it holds on to while there is nothing to do."""

QUEUE_SECONDS = 600.0
"""How long a thread waits until another one is done with a connection; longer, and the server is stuck."""

_ONE_MORE_TRY = ("too many", "connection slots", "starting up")  # why a server may take a connection a little later

# What an error says, as a regular expression, and what to do about it; the first that is found counts.
_ADVICE = (
    ("not a database", "It is damaged, or no SQLite file. Move it away to begin a new one, or set XPANDER_STORE."),
    ("malformed", "It is damaged. Copy it, try `sqlite3 FILE .recover`, and move it away to begin a new one."),
    ("(UNIQUE|duplicate key).*run_id", "A run of this id is kept already: use update()."),
    ("readonly", "Make the file and its folder writable, or set XPANDER_STORE to another place."),
    ("disk is full", "Free some space on that disk, or set XPANDER_STORE to another place."),
    ("No space left", "Free some space on the server's disk, or set XPANDER_STORE to another place."),
    (
        r"^\[Errno",
        "Look whether its folder can be made and written, or set XPANDER_STORE (sqlite:// forgets with the kernel).",
    ),
    ("disk I/O", "Look whether the disk is full or failing, or set XPANDER_STORE to another place."),
    ("locked", "Another program has been writing to it for too long: close that one, and try again."),
    ("Could not decode", "It is damaged. Copy it, and try `sqlite3 FILE .recover`."),
    ("unable to open", "Look whether its folder exists and is yours to write, or set XPANDER_STORE."),
    (
        "No module named",
        "Install that driver (for PostgreSQL: `pip install 'psycopg[binary]'`), or change XPANDER_STORE.",
    ),
    ("load plugin", "SQLAlchemy knows no such database or driver: correct XPANDER_STORE."),
    ("bad value|invalid (connection option|integer value|[a-z_]+ value:)", "Correct that setting in XPANDER_STORE."),
    ("authentication failed", "Correct the user and the password in XPANDER_STORE."),
    ("no password supplied", "Put the password into XPANDER_STORE, PGPASSWORD or ~/.pgpass."),
    ("pg_hba.conf", "The server doesn't let this user or machine in: ask who runs it, or correct XPANDER_STORE."),
    ("too many|connection slots", "Close kernels that use it, or ask who runs it for a higher max_connections."),
    ("QueuePool", "The database answers too slowly for so many threads: look at its load, and send fewer at once."),
    ("starting up", "Try again in a moment."),
    (
        "shutting down|terminating|closed the connection|connection is (lost|closed)",
        "The server was stopped or restarted, or the network failed: try again.",
    ),
    ("deadlock", "Another program changed the same runs at the same time: try again."),
    ("timeout", "The server answers too slowly, or can't be reached: look at its load and the network, and try again."),
    ("read-only transaction", "It is a copy, or set to be read only: set XPANDER_STORE to one that can be written."),
    (
        "permission denied for|no schema has been selected",
        "Ask who runs it for the right to create, read and write tables there.",
    ),
    ("must be owner", "This version changes the tables: let their owner open the store once."),
    ("FATAL:.*does not exist", "Create it on the server (`createdb`, `createuser`), or correct XPANDER_STORE."),
    (
        "connection (failed|is bad|to server)|resolve host|host name",
        "Look whether the server is running and can be reached, or correct XPANDER_STORE.",
    ),
)
_OTHERWISE = "Look at the place and its settings, or set XPANDER_STORE to another one."


def _default_url() -> str:
    """An SQLite file in the user's data folder."""
    from platformdirs import user_data_dir
    from sqlalchemy import URL

    path = os.path.join(user_data_dir("xpander_magics", appauthor=False), "runs.db")
    return URL.create("sqlite", database=path).render_as_string()


def address(asked: str | None) -> URL:
    """Where the store is: as asked, else ``XPANDER_STORE``, else the default; whatever the working directory becomes.

    Raises:
        StoreError: it is no SQLAlchemy URL.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(asked or os.environ.get("XPANDER_STORE") or _default_url())
        path = _path_in(url)
        return url if path is None else url.set(database=os.path.abspath(os.path.expanduser(path)))
    except (ArgumentError, ValueError):  # its message, and the text itself, may hold a password
        raise StoreError(
            "The run store's address is no SQLAlchemy URL. Set XPANDER_STORE to one like"
            " sqlite:////home/me/runs.db or postgresql+psycopg://me@host/runs."
        ) from None


def shown(url: URL) -> str:
    """An address as it may be shown: a file's path, or the URL without its password."""
    in_a_file = url.get_backend_name() == "sqlite" and url.database
    # PostgreSQL's drivers take passwords as settings, too.
    secret = [name for name in url.query if is_secret_name(name) or name == "odbc_connect"]
    return in_a_file or url.difference_update_query(secret).render_as_string(hide_password=True)


def file_of(url: URL) -> tuple[int, int] | None:
    """What tells an SQLite file from another one that takes its place; None where there is no file to look at."""
    path = _path_in(url)
    if path is None:
        return None
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def in_full(url: URL) -> str:
    """An address for another process, password and all."""
    return url.render_as_string(hide_password=False)


def _path_in(url: URL) -> str | None:
    """The path of an SQLite file; None where there is none, or SQLite alone knows it."""
    path = url.database
    is_file = url.get_backend_name() == "sqlite" and path and path != ":memory:" and not path.startswith("file:")
    return path if is_file else None


def open_engine(url: URL) -> Engine:
    """The store there, made if it is new, and brought up to date. Raises what databases and drivers raise.

    Raises:
        StoreError: the database's encoding does not hold every text, or its store is too new.
    """
    from sqlalchemy import create_engine

    backend = url.get_backend_name()
    if backend == "sqlite":
        engine = _sqlite_engine(url)
    elif backend == "postgresql":
        engine = _postgresql_engine(url)
    else:
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True)
    try:
        if backend == "postgresql":
            _check_encoding(engine)
        _patiently(
            lambda: migrate(engine.execution_options(writes=True)),
            ("locked",),  # SQLite doesn't wait by itself where another kernel turns WAL on
            float(str(url.query.get("timeout", BUSY_SECONDS))),
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
    path = _path_in(url)
    if path is not None:
        _make_private(path)
    elif url.database in (None, "", ":memory:"):
        pool |= {"pool_size": 1, "max_overflow": 0}  # each connection would have a database of its own
    engine = create_engine(url, hide_parameters=True, connect_args=arguments, **pool)

    @event.listens_for(engine, "connect")
    def connected(dbapi_connection: Any, _: Any) -> None:
        dbapi_connection.execute("PRAGMA trusted_schema=OFF")  # the file may be somebody else's, triggers and all
        tables = {name for (name,) in dbapi_connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not tables >= {"runs", "schema_version"}:
            raise StoreError(f"{shown(url)} is another program's database. Set XPANDER_STORE to a file of its own.")
        dbapi_connection.execute("PRAGMA synchronous=FULL")
        dbapi_connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    """An engine for many threads, which waits where a server wants one to."""
    from sqlalchemy import create_engine, event

    arguments: dict[str, Any] = {}
    if url.get_driver_name() in {"psycopg", "psycopg2"}:  # settings of libpq's
        arguments = {
            # PGCLIENTENCODING may say otherwise.
            "client_encoding": "utf8",
            "fallback_application_name": "xpander_magics",
            "connect_timeout": int(BUSY_SECONDS),
            "keepalives_idle": int(BUSY_SECONDS),
            "tcp_user_timeout": int(BUSY_SECONDS * 1000),
        }
        if "PGCONNECT_TIMEOUT" in os.environ:
            del arguments["connect_timeout"]
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=KEPT_OPEN,
        max_overflow=CONNECTIONS - KEPT_OPEN,
        pool_timeout=QUEUE_SECONDS,
    )

    @event.listens_for(engine, "do_connect")
    def connecting(dialect: Any, _: Any, args: Any, settings: Any) -> Any:
        return _patiently(lambda: dialect.connect(*args, **settings), _ONE_MORE_TRY, BUSY_SECONDS, pause=0.2)

    return engine


def _check_encoding(engine: Engine) -> None:
    with engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise StoreError(
            f"The run store's database {engine.url.database} has the encoding {encoding}, which doesn't hold every"
            " text. Create one with `createdb --encoding UTF8 --template template0 NAME`, and set XPANDER_STORE to it."
        )


def _make_private(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _patiently(attempt: Callable[[], _Result], signs: Iterable[str], seconds: float, pause: float = 0.02) -> _Result:
    """What ``attempt`` gives, tried again for so many seconds while its error has one of these signs."""
    until = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except Exception as error:
            if not any(sign in str(error) for sign in signs) or time.monotonic() > until:
                raise
        time.sleep(pause)


def in_short(error: Exception) -> str:
    """What is wrong, without SQL and parameters (they hold prompts), and what to do next."""
    said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    said = said.partition(" with text ")[0]  # what couldn't be decoded
    return f"{said}. {next((advice for sign, advice in _ADVICE if re.search(sign, said)), _OTHERWISE)}"
