"""The run store: every run, kept before it is sent. No other module knows SQL.

What it is for: a run costs money, so what is known of it must outlive the kernel. It is added before
it is sent, updated once its task's id is known, and again when it has ended.

Why SQLAlchemy: the same statements serve the SQLite file of one person and the PostgreSQL of a team.
Only Core's portable types and statements are used; what is SQLite's own is in ``database``.

Why one wide table: a run is a row of the frame, and the frame is read by columns. JSON is text, since
databases differ in what their JSON types refuse (NaN, NUL, big integers); times are microseconds
since 1970 in UTC. ``seq`` orders the runs as they were added, ``added_at`` says when that was.

Nothing is opened before the first use. A forked process opens its own connections, and leaves those
that it has inherited alone: SQLite forbids even to close them there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from xpander_magics.errors import ConfigError, NotFoundError, StoreError
from xpander_magics.results import Run
from xpander_magics.store.columns import FRAME_ROW, KEPT, TAGS, TEXT, pack, unpack
from xpander_magics.store.database import address, file_of, in_full, in_short, open_engine, shown
from xpander_magics.store.filters import Filter, chunks, queries
from xpander_magics.store.frames import build
from xpander_magics.store.reading import Batches, read
from xpander_magics.store.tables import runs_table

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import ColumnElement, Connection, Engine, Insert, Update

    from xpander_magics.store.scores import Scores
    from xpander_magics.store.sweeps import Sweeps
    from xpander_magics.store.votes import Votes

PERSONS = frozenset({"run_id", "tags", "note", "scores"})  # what ``update`` leaves alone
_KEPT = [column.name for column in KEPT]
_Made = TypeVar("_Made")
_inherited: list[Engine] = []  # of the process that this one was forked from; never closed here


class Store:
    """The runs that were kept. Safe to use from many threads, and beside other kernels.

    Every method raises ``StoreError``, which says where the store is and what to do, when the store
    can't be opened, read or written.

    Args:
        url: an SQLAlchemy URL; None takes ``XPANDER_STORE`` from the environment, and without it an
            SQLite file in the user's data folder.
    """

    def __init__(self, url: str | None = None) -> None:
        self._asked = url
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._opened: Engine | None = None
        self._writes: Engine
        self._file: tuple[int, int] | None = None
        self._where = "the run store"

    def __repr__(self) -> str:
        return f"Store({self._where!r})"

    @property
    def location(self) -> str:
        """Where the runs are kept, without a password; nothing is opened for it."""
        return shown(address(self._asked))

    @property
    def url(self) -> str:
        """The address for another process, password and all: never to be shown."""
        return in_full(address(self._asked))

    def add(self, runs: Iterable[Run]) -> None:
        """Keeps new runs, all or none, in their order."""
        now = time.time_ns() // 1000
        rows = [{**pack(run), "added_at": now} for run in runs]
        if rows:
            with self.writing() as connection:
                connection.execute(_insert(), rows)

    def update(self, run: Run) -> None:
        """Keeps what has become of a run; one that isn't there is added.

        Its tags, note and scores stay as the store has them: they have methods of their own, and may
        have been changed from elsewhere while the run was under way.
        """
        row = pack(run)
        with self.writing() as connection:
            changed = {name: value for name, value in row.items() if name not in PERSONS}
            if not connection.execute(_update(), {**changed, "of_run": row["run_id"]}).rowcount:
                connection.execute(_insert(), [{**row, "added_at": time.time_ns() // 1000}])

    def find(self, ref: str) -> Run:
        """The run of this id, of an id that begins so (4 characters or more), or the newest of this task.

        Raises:
            NotFoundError: there is none.
            ConfigError: several ids begin so.
        """
        from sqlalchemy import func, select

        table, text = runs_table(), TEXT.pack(ref)
        shown = (table.c.run_id, table.c.target, table.c.status)
        with self.reading() as connection:
            for condition in (table.c.run_id == text, table.c.task_id == text):
                found = self._newest(connection, condition)
                if found:
                    return found
            begins = select(*shown).order_by(table.c.seq.desc()).limit(6)
            if text and len(text) >= 4:
                near = connection.execute(begins.where(table.c.run_id.startswith(text, autoescape=True))).all()
                found = self._newest(connection, table.c.run_id == near[0][0]) if len(near) == 1 else None
                if found:  # a damaged index may know nothing of it
                    return found
                if len(near) > 1:
                    raise ConfigError(f"Several runs begin with {ref!r}: {_listed(near)}. Write more of the id.")
            count = connection.execute(select(func.count()).select_from(table)).scalar()
            latest = connection.execute(begins).all()
        newest = f"The newest are {_listed(latest)}." if latest else "Nothing was run yet."
        raise NotFoundError(
            f"No run or task {ref!r} among the {count:,} in {self._where}. {newest}"
            " A run is named by its id, at least four characters of its beginning, or its task's id."
        )

    def select(self, **which: Any) -> list[Run]:
        """The runs that fit, newest last; ``Filter`` has what may be asked."""
        return self._read(_KEPT, Filter(**which), _unpacked)

    def frame(self, **which: Any) -> pd.DataFrame:
        """The same runs, as ``frames.frame_of`` frames them, without making each a ``Run``."""
        return self._read(FRAME_ROW, Filter(**which), build)

    def cached(self, cache_key: str) -> Run | None:
        """The newest run of this key that completed without an error, or None."""
        from sqlalchemy import and_

        table = runs_table()
        good = and_(table.c.status == "completed", table.c.error_type.is_(None))
        with self.reading() as connection:
            return self._newest(connection, and_(table.c.cache_key == TEXT.pack(cache_key), good))

    def tag(self, run_ids: Iterable[str], tags: Iterable[str], remove: bool = False) -> None:
        """Gives all these runs these tags, or with ``remove`` takes them away; all or none.

        Raises:
            NotFoundError: one of the runs isn't there.
        """
        given = list(tags)

        def changed(old: list[str]) -> list[str]:
            return [t for t in old if t not in given] if remove else list(dict.fromkeys([*old, *given]))

        self._change("tags", run_ids, lambda stored: TAGS.pack(changed(TAGS.unpack(stored))))

    def set_note(self, run_id: str, note: str | None) -> None:
        """Replaces a run's note. Raises NotFoundError where there is no such run."""
        self._change("note", [run_id], lambda _: TEXT.pack(note))

    @functools.cached_property
    def sweeps(self) -> Sweeps:
        """The sweeps that are kept."""
        from xpander_magics.store.sweeps import Sweeps

        return Sweeps(self)

    @functools.cached_property
    def votes(self) -> Votes:
        """The votes that are kept."""
        from xpander_magics.store.votes import Votes

        return Votes(self)

    @functools.cached_property
    def scores(self) -> Scores:
        """The scores that are kept."""
        from xpander_magics.store.scores import Scores

        return Scores(self)

    def close(self) -> None:
        """Closes what is open; the next use opens it again."""
        with self._lock:
            engine, self._opened = self._opened, None
            if engine is not None and self._pid == os.getpid():
                engine.dispose()

    def _change(self, name: str, run_ids: Iterable[str], change: Callable[[Any], Any]) -> None:
        """Reads one column of these runs, and writes what ``change`` makes of it, in one transaction."""
        from sqlalchemy import bindparam, select, update

        table = runs_table()
        # Rows are locked in one order everywhere: two that change the same runs then wait for each other at most.
        wanted = sorted({TEXT.pack(run_id) for run_id in ([run_ids] if isinstance(run_ids, str) else run_ids)})
        query = select(table.c.run_id, table.c[name]).order_by(table.c.run_id).with_for_update()
        with self.writing() as connection:
            found = [
                tuple(row) for ids in chunks(wanted) for row in connection.execute(query.where(table.c.run_id.in_(ids)))
            ]
            missing = set(wanted).difference(row[0] for row in found)
            if missing:
                raise NotFoundError(f"No run {min(missing)!r} in {self._where}; nothing was changed.")
            changes = [{"of_run": run_id, "new": change(old)} for run_id, old in found]
            if changes:
                of_run = table.c.run_id == bindparam("of_run")
                connection.execute(update(table).where(of_run).values({name: bindparam("new")}), changes)

    def _newest(self, connection: Connection, condition: ColumnElement[bool]) -> Run | None:
        from sqlalchemy import select

        table = runs_table()
        query = select(table.c.seq).where(condition).order_by(table.c.seq.desc()).limit(1)
        seq = connection.execute(query).scalar()
        if seq is None:
            return None
        row = select(*(table.c[name] for name in _KEPT)).where(table.c.seq == seq)
        return read(connection, _KEPT, lambda: [row], _unpacked, self._where)[0]

    def _read(self, names: Sequence[str], which: Filter, make: Callable[[Batches], _Made]) -> _Made:
        with self.reading() as connection:
            return read(connection, names, lambda: queries(connection, names, which), make, self._where)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._told(), self._engine().connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._told():
            engine = self._engine()
            one_by_one = self._lock if engine.dialect.name == "sqlite" else contextlib.nullcontext()
            with one_by_one, self._writes.begin() as connection:
                yield connection

    def _engine(self) -> Engine:
        """The engine of this process, the store brought up to date.

        Raises:
            StoreError: once, where another file has taken the place of the one that is open: what is written to a
                deleted one is lost.
        """
        if self._pid != os.getpid():
            if self._opened is not None:
                _inherited.append(self._opened)
            self._opened, self._lock, self._pid = None, threading.RLock(), os.getpid()
        opened = self._opened  # another thread may close it meanwhile
        if opened is not None and self._file != file_of(opened.url):
            self.close()
            raise StoreError(
                f"The run store {self._where} was deleted, moved or replaced while it was open.\n"
                "Put it back if you can; from now on what is there is used, and where nothing is, it is made anew."
            )
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    opened = self._open()
                    # Its transactions begin as those of writers. To make it takes as long as a statement does.
                    self._writes = opened.execution_options(writes=True)
                    self._file = file_of(opened.url)
                    self._opened = opened
        return self._opened

    def _open(self) -> Engine:
        url = address(self._asked)
        self._where = shown(url)
        try:
            return open_engine(url)
        except ValueError as error:
            raise StoreError(f"The run store's address has an odd setting: {error}. Correct XPANDER_STORE.") from error

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Makes a StoreError of what databases and drivers raise; what is wrong in our own code goes through."""
        try:
            yield
        except Exception as error:
            if isinstance(error, self._database_errors()):
                raise StoreError(f"The run store {self._where} can't be used: {in_short(error)}") from error
            raise

    def _database_errors(self) -> tuple[type[BaseException], ...]:
        import sqlite3

        from sqlalchemy.exc import SQLAlchemyError

        # A cursor of the driver's, and an event while connecting, raise the driver's own.
        dbapi: Any = self._opened.dialect.loaded_dbapi if self._opened else sqlite3
        return SQLAlchemyError, dbapi.Error, OSError, ImportError


def _unpacked(batches: Batches) -> list[Run]:
    return [unpack(row) for batch in batches for row in batch]


def _listed(rows: Iterable[Sequence[Any]]) -> str:
    return ", ".join(f"{str(run_id)[:12]} ({target or 'no target'}, {status})" for run_id, target, status in rows)


# A statement that is made once has its cache key made once, too.
@functools.cache
def _insert() -> Insert:
    return runs_table().insert().inline()


@functools.cache
def _update() -> Update:
    from sqlalchemy import bindparam

    return (
        runs_table().update().where(runs_table().c.run_id == bindparam("of_run"))
    )  # sets what is among the parameters
