"""The tables, as numbered migrations.

``MIGRATIONS`` is only ever appended to; what a migration does is spelled out in it and never refers to
today's columns, so an old file takes the same steps whenever it is opened. Each runs in a
transaction of its own, together with the line in ``schema_version`` that says so: a kernel that dies
half way leaves the version before. Two kernels that migrate at once wait for each other at the
transaction's beginning, and the second finds the work done: in SQLite by ``BEGIN IMMEDIATE``, in
PostgreSQL by an advisory lock, which ends with the transaction however that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xpander_magics.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Migration = Callable[["Connection"], None]

_LOCK = 0x7870616E646572  # a number that no other program should lock: "xpander"


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


def sweeps(connection: Connection) -> None:
    """Sweeps, the pace that kernels share, a run's place in its sweep; in PostgreSQL, indexes that take any text."""
    from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text, text

    connection.execute(text("ALTER TABLE runs ADD COLUMN number BIGINT"))
    metadata = MetaData()
    table = Table(
        "sweeps",
        metadata,
        Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("sweep_id", Text, nullable=False),
        *(Column(name, BigInteger) for name in ("added_at", "size", "ended_at")),
        *(Column(name, Text) for name in ("base_url", "experiment")),
        Column("plan", LargeBinary),
        sqlite_autoincrement=True,
    )
    Index("sweeps_sweep_id", table.c.sweep_id, unique=True)
    times = (Column(name, Double) for name in ("next_at", "gap"))  # seconds, the first since 1970
    Table("paces", metadata, Column("service", Text, primary_key=True), *times)
    metadata.create_all(connection, checkfirst=False)
    if connection.dialect.name == "postgresql":
        for statement in _POSTGRESQL_INDEXES:
            connection.execute(text(statement))


# A B-tree refuses values of more than 2.7 KB, and with them the row: what is a person's or the service's needs
# another index. A hash index has each value's rows in one chain, which every insert walks: good for ids, of which
# each has few rows, and ever slower for an experiment's name (20 times a B-tree's time after 200,000 rows of one), so
# that one's beginning has a B-tree (500 characters are at most 2,000 bytes). What we make ourselves is short.
# ``text_pattern_ops`` serves equality like any other, and the search for an id by its beginning in every collation.
# The status is left out: a row whose indexed values stay is changed without a new entry in each index.
_POSTGRESQL_INDEXES = (
    "DROP INDEX runs_run_id, runs_task_id, runs_experiment, runs_cache_key_status",
    "CREATE UNIQUE INDEX runs_run_id ON runs (run_id text_pattern_ops)",
    "CREATE INDEX runs_task_id ON runs USING hash (task_id)",
    "CREATE INDEX runs_experiment ON runs (substr(experiment, 1, 500))",
    "CREATE INDEX runs_cache_key ON runs (cache_key)",
)


def votes(connection: Connection) -> None:
    """Votes between two answers. What is indexed are ids, which we make: short in every database."""
    from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

    table = Table(
        "votes",
        MetaData(),
        Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("vote_id", Text, nullable=False),
        *(Column(name, BigInteger) for name in ("added_at", "undone_at", "seed")),
        *(Column(name, Text) for name in ("sweep_id", "left_run", "right_run", "choice", "voter")),
        sqlite_autoincrement=True,
    )
    Index("votes_vote_id", table.c.vote_id, unique=True)
    Index("votes_left_run", table.c.left_run)
    table.create(connection)


def scores(connection: Connection) -> None:
    """Scores as they were given; what is indexed is a run's id, as for votes. ``runs.scores`` has the newest."""
    from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, Table, Text

    table = Table(
        "scores",
        MetaData(),
        Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("run_id", Text, nullable=False),
        Column("added_at", BigInteger),
        Column("value", Double),
        *(Column(name, Text) for name in ("name", "scorer", "scored_by", "detail")),
        sqlite_autoincrement=True,
    )
    Index("scores_run_id", table.c.run_id)
    table.create(connection)


MIGRATIONS: tuple[Migration, ...] = (first, sweeps, votes, scores)
"""The first makes version 1 of nothing, the second version 2 of that, and so on."""


def migrate(engine: Engine, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Brings a store up to date.

    Args:
        engine: one whose transactions lock out other writers from their beginning, or PostgreSQL's.
        migrations: all there are, the first first.

    Raises:
        StoreError: the store is newer than ``migrations``.
    """
    from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, func, insert, inspect, select

    locks = engine.dialect.name == "postgresql"
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
            if locks:
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            found = version(connection)  # another kernel may have been faster
            if found < len(migrations):
                versions.create(connection, checkfirst=True)
                migrations[found](connection)
                found += 1
                connection.execute(insert(versions).values(version=found, migrated_at=time.time_ns() // 1000))
    if found > len(migrations):
        raise StoreError(
            f"The run store was written by a newer xpander_magics (its version is {found}, this one knows up to"
            f" {len(migrations)}). Upgrade xpander_magics here, too, or set XPANDER_STORE to another one."
        )
